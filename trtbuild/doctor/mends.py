"""The commands that fix a problem, for each family of distributions, from NVIDIA's and Docker's installation pages."""

from __future__ import annotations

from trtbuild.doctor.checks import Mends

_KEYRING = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
_REPOSITORY = "https://nvidia.github.io/libnvidia-container"

DRIVER: Mends = {
    "debian": (
        "sudo apt-get update",
        "sudo ubuntu-drivers install    # on Ubuntu; on Debian: sudo apt-get install -y cuda-drivers, of NVIDIA's "
        "repository (https://developer.nvidia.com/cuda-downloads)",
        "sudo reboot",
    ),
    "rhel": (
        "sudo dnf install -y cuda-drivers    # of NVIDIA's repository: https://developer.nvidia.com/cuda-downloads",
        "sudo reboot",
    ),
    "": ("# https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",),
}
RELOAD: Mends = {"": ("sudo reboot",)}
NVIDIA_SMI: Mends = {
    "debian": ("sudo apt-get install -y nvidia-utils-580    # or nvidia-smi, on Debian: the driver's own release",),
    "rhel": ("sudo dnf install -y nvidia-driver-cuda",),
}
DOCKER: Mends = {
    "debian": (
        "sudo apt-get update && sudo apt-get install -y docker.io    # or podman",
        "sudo usermod -aG docker $USER    # and log in again",
    ),
    "rhel": ("sudo dnf install -y podman    # or docker-ce: https://docs.docker.com/engine/install/",),
    "": ("# https://docs.docker.com/engine/install/",),
}
DAEMON: Mends = {
    "": ("sudo systemctl enable --now docker", "sudo usermod -aG docker $USER    # and log in again"),
}
TOOLKIT: Mends = {
    "debian": (
        f"curl -fsSL {_REPOSITORY}/gpgkey | sudo gpg --dearmor -o {_KEYRING}",
        f"curl -s -L {_REPOSITORY}/stable/deb/nvidia-container-toolkit.list | "
        f"sed 's#deb https://#deb [signed-by={_KEYRING}] https://#g' | "
        "sudo tee /etc/apt/sources.list.d/nvidia-container-toolkit.list",
        "sudo apt-get update && sudo apt-get install -y nvidia-container-toolkit",
    ),
    "rhel": (
        f"curl -s -L {_REPOSITORY}/stable/rpm/nvidia-container-toolkit.repo | "
        "sudo tee /etc/yum.repos.d/nvidia-container-toolkit.repo",
        "sudo dnf install -y nvidia-container-toolkit",
    ),
    "": ("# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html",),
}
RUNTIME: Mends = {
    "": ("sudo nvidia-ctk runtime configure --runtime=docker", "sudo systemctl restart docker"),
}
CDI: Mends = {"": ("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",)}
CXX: Mends = {
    "debian": ("sudo apt-get install -y g++",),
    "rhel": ("sudo dnf install -y gcc-c++",),
    "": ("# install g++, or name another with CXX and executor.env=[CXX]",),
}
HUB: Mends = {"": ("hf auth login    # or export HF_TOKEN=…; the model's page says whether it is gated",)}
