"""The worker of `trtbuild run`: `python -m trtbuild.compilers.aot_inductor.generate request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.check_and_generate:generate")
