"""The only package that imports MLflow."""

import os

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

# And these at each call of a server. With its own 7 retries of 120 s it takes four minutes to say that nobody listens, a
# quarter of an hour where somebody does and does not answer. Who asks tries again anyway: tasks, the poller, the reconciler.
# The timeout is for the next byte, so what is uploaded may be as large as a server stores within it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
