"""One recorded case: clients for it, queues of its own, and the answers that it is compared with."""

import pathlib
import time
import uuid

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from match import Matcher

MODELS = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "aws" / "models"
REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
WAIT_SECS_MAX = 20
_clients = {}


def client(endpoint, protocol):
    """A client of SQS that speaks `sqs` (JSON) or `sqs_query`."""
    key = (endpoint, protocol)
    if key not in _clients:
        config = Config(retries={"max_attempts": 1}, parameter_validation=False, max_pool_connections=5)
        options = {"endpoint_url": endpoint, "region_name": REGION, "config": config, **KEYS}
        if protocol == "sqs":
            _clients[key] = boto3.client("sqs", **options)
        else:
            session = botocore.session.get_session()
            loader = botocore.loaders.Loader(extra_search_paths=[str(MODELS)])
            session.register_component("data_loader", loader)
            options.pop("config")
            _clients[key] = session.create_client("sqs-query", config=config, **options)
    return _clients[key]


class Case:
    def __init__(self, endpoint, name, recorded):
        self.endpoint = endpoint
        self.name = name
        self.recorded = recorded
        self.matcher = Matcher()
        self.matched = set()
        self.queues = []
        self.parameters = name.split("[", 1)[1][:-1] if "[" in name else ""
        self.protocol = "sqs_query" if self.parameters.startswith("sqs_query") else "sqs"
        self.json = client(endpoint, "sqs")
        self.query = client(endpoint, "sqs_query")
        self.sqs = self.query if self.protocol == "sqs_query" else self.json

    @property
    def parameter(self):
        """What stands behind the protocol in the case's name."""
        for protocol in ("sqs_query-", "sqs-"):
            if self.parameters.startswith(protocol):
                return self.parameters[len(protocol) :]
        return self.parameters

    def run(self, function):
        try:
            function(self)
            # Answers that were recorded and not asked for would be no proof.
            missing = set(self.recorded) - self.matched - {"message"}
            assert not missing, f"nobody asked for {sorted(missing)}"
        finally:
            for url in self.queues:
                try:
                    self.json.delete_queue(QueueUrl=url)
                except ClientError:
                    pass

    def match(self, key, answer):
        self.matched.add(key)
        expected = self.recorded[key]
        if isinstance(expected, dict) and "message" in expected and "Error" in expected:
            expected = {name: value for name, value in expected.items() if name != "message"}
        if isinstance(answer, dict) and "message" in answer and "Error" in answer:
            answer = {name: value for name, value in answer.items() if name != "message"}
        self.matcher.match(expected, answer, key)

    def refused(self, key, call, **arguments):
        """The call must be refused, as recorded."""
        try:
            answer = call(**arguments)
        except ClientError as error:
            response = {name: value for name, value in error.response.items() if name in ("Error", "ResponseMetadata")}
            self.match(key, response)
            return error
        raise AssertionError(f"{key}: not refused: {answer}")

    def queue(self, name=None, client=None, **arguments):
        name = name or self.name_of("queue")
        url = (client or self.sqs).create_queue(QueueName=name, **arguments)["QueueUrl"]
        if url not in self.queues:
            self.queues.append(url)
        return url

    def fifo(self, **attributes):
        return self.queue(self.name_of("queue") + ".fifo", Attributes={"FifoQueue": "true", **attributes})

    def name_of(self, kind):
        return f"{kind}-{uuid.uuid4().hex[:8]}"

    def arn(self, url):
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def attributes(self, url, *names):
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names or ["All"]))
        return answer

    def wait_for(self, condition, secs=WAIT_SECS_MAX):
        until = time.monotonic() + secs
        while not condition():
            assert time.monotonic() < until, "it has not come true"
            time.sleep(0.05)
