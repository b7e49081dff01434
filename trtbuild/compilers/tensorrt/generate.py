"""The worker of `trtbuild run`: `python -m trtbuild.compilers.tensorrt.generate request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt.check_and_generate:generate")
