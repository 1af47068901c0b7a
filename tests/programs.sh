#!/bin/sh
# The programs that tests run: installed where apt-get can, or else named. Tests that miss one are skipped, in CI they fail.
set -eu

packages=""
command -v chromium >/dev/null || packages="$packages chromium"
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
command -v systemd-analyze >/dev/null || packages="$packages systemd"
# Debian 12 has one that is too old for the manifests. Newer ones: https://kubernetes.io/docs/tasks/tools/
command -v kubectl >/dev/null || packages="$packages kubernetes-client"
promtool=""
command -v promtool >/dev/null || promtool=promtool
[ -n "$packages$promtool" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  # Word splitting is meant. No cluster is wanted: the tests make their own.
  [ -z "$packages" ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  [ -z "$promtool" ] || sh tests/promtool.sh
else
  echo "Not installed, tests that need them are skipped:$packages $promtool"
fi
