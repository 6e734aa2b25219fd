"""What the team's server asks about every request, beside MLflow's own rules: is it one of ours?

MLflow 3.17 serves over 500 routes, and lets anybody with an account make experiments, models, traces,
gateways to language models and more. Of these undertone, and the pages it is read by, use a few
families; all others are closed, also to the administrator, and with them every route by which a text
could come in or go out: traces, prompts, evaluation datasets, assistants, gateways, webhooks.

`team` names `admitted` in MLflow's auth.ini; it runs within the server.
"""

import re

from flask import Response, request
from mlflow.protos.service_pb2 import CreateExperiment
from mlflow.server.auth import authenticate_request_basic_auth, make_forbidden_response, store
from mlflow.server.handlers import _get_request_message
from werkzeug.datastructures import Authorization

_API = r"/(?:ajax-)?api/[23]\.0/"
_OPEN = re.compile(
    r"/|/version|/graphql|/get-artifact|/model-versions/get-artifact"
    rf"|{_API}mlflow-artifacts/.+"
    rf"|{_API}mlflow/(?:experiments|runs|metrics|artifacts|logged-models|registered-models"
    r"|model-versions|users)(?:/.*)?"
)
_CLOSED = re.compile(rf"{_API}mlflow/runs/create-promptlab-run")  # keeps a prompt and its answer
# Else whoever comes first would own a codebook's name (`team.grant` makes both), and everybody could
# read the names of all who have an account.
_ADMIN = re.compile(rf"{_API}mlflow/(?:(?:experiments|registered-models)/create|users/list)")
_EXPERIMENT = re.compile(rf"{_API}mlflow/experiments/create")


def admitted() -> Authorization | Response:
    """Who asks; or the answer 401 without a right password, 403 for what nobody may ask here."""
    who: Authorization | Response = authenticate_request_basic_auth()
    if isinstance(who, Response):
        return who
    refused: Response = make_forbidden_response()
    path = request.path
    if not _OPEN.fullmatch(path) or _CLOSED.fullmatch(path):
        return refused
    if _ADMIN.fullmatch(path) and not store.get_user(who.username).is_admin:
        return refused
    # it could be any folder of this machine, or another experiment's
    if _EXPERIMENT.fullmatch(path) and _get_request_message(CreateExperiment()).artifact_location:
        return refused
    return who
