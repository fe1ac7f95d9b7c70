# One image for CPU and GPU: torch from PyPI includes the CUDA libraries and uses them if there is a GPU.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/l2v
ENV PATH=/opt/l2v/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Install the dependencies first, so that this layer, by far the largest, is cached when only the source changes. Each
# file must match the hash written by `make lock`, and only wheels are installed, so no package runs code.
COPY docker/requirements.txt ./
RUN pip install --require-hashes --only-binary :all: -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY l2v ./l2v
COPY models ./models
COPY training ./training
COPY app ./app
# setuptools is already installed from the requirements.
RUN pip install --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin l2v && install -d -o l2v /models
COPY --from=build /opt/l2v /opt/l2v
COPY docker/licences.md /opt/l2v/licences.md
ENV PATH=/opt/l2v/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models \
    L2V_HOST=0.0.0.0 \
    L2V_PORT=8080
VOLUME /models
USER 10001
WORKDIR /home/l2v
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['L2V_PORT']}/health\", timeout=2)"]
ENTRYPOINT ["l2v"]
CMD ["serve"]
