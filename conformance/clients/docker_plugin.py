"""A pytest plugin for suites that start RabbitMQ in a container: gives them the broker at hand.

Their `tests/docker_client.py` is the only thing that knows of containers; its functions are
replaced before the suite's conftest imports them.
"""

import os

from tests import docker_client


class DockerClient:
    """A container runtime in which the broker under test is always running already."""

    def __init__(self, *_, **__):
        pass

    def run(self, image, ports, environment=None):
        # Nothing listens for TLS: cases that need it are left out.
        found = {"5672/tcp": int(os.environ["AMQP_PORT"]), "5671/tcp": 1}
        return docker_client.ContainerInfo(id="none", ports=found, host=os.environ["AMQP_HOST"])

    def kill(self, container_id):
        pass

    def remove(self, container_id):
        pass


docker_client.check_docker_available = lambda: None
docker_client.DockerClient = DockerClient
