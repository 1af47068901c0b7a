#!/bin/sh
# The programs that tests run: installed where apt-get can, or else named. Tests that miss one are skipped, in CI they fail.
set -eu

packages=""
command -v chromium >/dev/null || packages="$packages chromium"
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
[ -n "$packages" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  # Word splitting is meant. No cluster is wanted: the tests make their own.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
else
  echo "Not installed, tests that need them are skipped:$packages"
fi
