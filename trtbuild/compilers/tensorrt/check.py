"""The worker of the check: `python -m trtbuild.compilers.tensorrt.check request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt.check_and_generate:check")
