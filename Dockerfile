# The command line on a CPU. Index a folder of texts and ask it:
#
#     docker build -t corpus-teacher .
#     docker run --rm -v "$PWD:/data" corpus-teacher index build /data/texts --out /data/my-index
#     docker run --rm -v "$PWD:/data" corpus-teacher index query /data/my-index "once upon a time"
FROM python:3.11-slim

# Give the index of PyTorch's CPU wheels as a build argument, or pip takes the default Linux wheel with gigabytes of CUDA:
# docker build --build-arg PIP_EXTRA_INDEX_URL=… (constraints.txt pins the version that both have).
ARG PIP_EXTRA_INDEX_URL=""
COPY constraints.txt /tmp/constraints.txt

COPY pyproject.toml README.md LICENSE /src/
COPY corpus_teacher /src/corpus_teacher
COPY index /src/index
COPY examples /src/examples
RUN pip install --no-cache-dir -c /tmp/constraints.txt /src && rm -rf /src /tmp/constraints.txt

# A user without rights over the system; compiled kernels go to a folder of their own that a volume may keep.
RUN useradd --create-home teacher && mkdir -p /cache && chown teacher /cache
USER teacher
ENV NUMBA_CACHE_DIR=/cache
VOLUME ["/data", "/cache"]
WORKDIR /data
ENTRYPOINT ["corpus-teacher"]
CMD ["--help"]
