"""The worker of `trtbuild run`: `python -m trtbuild.compilers.onnxruntime.generate request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.onnxruntime.runtime:generate")
