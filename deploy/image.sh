#!/bin/sh
# Builds the images keyreel-gateway and keyreel-worker, tagged with the version and `latest`. Arguments go to the build, such as
#   sh deploy/image.sh --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu126
# TARGETS, BUILDER: what to build, and with which program.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/keyreel/version.py)
if [ -z "${BUILDER:-}" ]; then
  for program in docker podman buildah; do
    if "$program" info >/dev/null 2>&1; then BUILDER=$program && break; fi
  done
fi
if [ -z "${BUILDER:-}" ]; then
  echo "To build images, install podman or buildah, or install docker and start its daemon." >&2
  exit 1
fi

for target in ${TARGETS:-gateway worker}; do
  case $BUILDER in
    # Docker's format has health checks, OCI's has not.
    podman | buildah) format="--format docker" ;;
    *) format="" ;;
  esac
  # shellcheck disable=SC2086
  "$BUILDER" build $format --file deploy/Containerfile --target "$target" --tag "keyreel-$target:$version" \
    --tag "keyreel-$target:latest" "$@" .
done
