# The MLflow server of compose.yaml. Its context is the project's root.
FROM python:3.11.14-slim-bookworm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /srv
COPY constraints.txt infra/requirements.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt \
        --requirement requirements.txt mlflow \
    && pip check \
    && useradd --uid 1000 --no-create-home mlflow
COPY infra/mlflow-auth.ini ./
USER 1000
EXPOSE 5000
CMD ["mlflow", "server"]
