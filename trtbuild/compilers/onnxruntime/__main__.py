"""The worker of the `engine` step: `python -m trtbuild.compilers.onnxruntime request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.onnxruntime.engine:run")
