# Builds an image that includes the packages of --fast, so a container is ready a few seconds after it starts:
#
#   docker build -t sam2-amg .
#   docker run --rm -p 127.0.0.1:5000:5000 sam2-amg
#
# Packages fit only the processor or the kind of GPU that they are made on; elsewhere the server refuses them with an
# error. Docker builds without a GPU. To serve on a GPU, make the packages in a container of the stage `builder` with
# access to the GPU and mount them at /packages. Then change the command: add CHECKPOINT_DIR and MODEL_TYPE, and set the
# mode and --device.

FROM python:3.12-slim AS base
WORKDIR /app
# packages need the OpenMP runtime of GCC
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY requirements-build.lock requirements.lock ./
# sam2 and two of its dependencies come as source; they build without isolation, which would install a second torch
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && SAM2_BUILD_CUDA=0 pip install --no-cache-dir --no-build-isolation --require-hashes -r requirements.lock
COPY server.py compile_export.py pyproject.toml ./
COPY sam2_amg sam2_amg

FROM base AS builder
# only making packages needs the compiler
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python compile_export.py --fast --device cpu --output /packages

FROM base
COPY --from=builder /packages /packages
RUN useradd --create-home --uid 10001 server
USER 10001
EXPOSE 5000
HEALTHCHECK --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/readyz')"]
CMD ["python", "server.py", "--fast", "--device", "cpu", \
     "--load_exported", "/packages", "--host", "0.0.0.0"]
