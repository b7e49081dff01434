"""The worker of the `weights` step: `python -m trtbuild.compilers.aot_inductor.weights_worker request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.weights:run")
