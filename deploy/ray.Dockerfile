# The server's image with Ray, for replicas on Kubernetes (deploy/kuberay.yaml):
#
#   docker build -t sam2-amg:0.2.0 .
#   docker build -t registry.example.org/sam2-amg-ray:0.2.0 - < deploy/ray.Dockerfile
#   docker push registry.example.org/sam2-amg-ray:0.2.0

FROM sam2-amg:0.2.0
USER root
# as requirements-ray.txt has it
RUN pip install --no-cache-dir "ray[serve]==2.60.0"
USER 10001
