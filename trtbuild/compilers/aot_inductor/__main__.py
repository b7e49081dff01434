"""The worker of the `engine` step: `python -m trtbuild.compilers.aot_inductor request.json out/`."""

from trtbuild.worker import serve

if __name__ == "__main__":
    serve("trtbuild.compilers.aot_inductor.engine:run")
