# The package and its lessons on processors alone, in JupyterLab.
#   docker build -t celldeath .
#   docker run --rm -p 127.0.0.1:8888:8888 -v "$PWD/celldeath_lessons:/home/reader/celldeath_lessons" celldeath
# then open the address with the token that it prints. Written to Docker's documentation; it has not been built on a host yet.
FROM python:3.12-slim
RUN useradd --create-home reader
COPY . /opt/celldeath_nb
# torch without CUDA, from PyTorch's own index
RUN python -m pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "/opt/celldeath_nb[lab]"
USER reader
WORKDIR /home/reader
EXPOSE 8888
# loopback would be the container's own: what may reach it is said by -p above
CMD ["celldeath", "lab", "--no-browser", "--address", "0.0.0.0"]
