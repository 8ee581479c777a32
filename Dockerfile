# The trainer on a GPU. Build it here, and run it with the folders of your models, pictures and results:
#   docker build --tag pivot-scripts .
#   docker run --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/work" pivot-scripts --config_file style.toml
# Paths in the TOML are those below the folder that you start it in. Another command: --entrypoint python, then its path
# below /pivot-scripts, such as /pivot-scripts/evaluate.py. Cards before the RTX 20 series: --build-arg CUDA=cu126
FROM python:3.12-slim
ARG CUDA=cu130
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /pivot-scripts
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/$CUDA \
    && python -m pip install --no-cache-dir --requirement requirements.txt
COPY . .
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["python", "/pivot-scripts/train_network.py"]
