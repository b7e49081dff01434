"""The worker of the check: `python -m trtbuild.compilers.aot_inductor.check request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.check_and_generate:check")
