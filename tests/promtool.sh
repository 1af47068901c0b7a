#!/bin/sh
# Installs promtool from Debian's package of Prometheus, without the service that the package would start.
set -eu

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
(cd "$folder" && apt-get -o APT::Sandbox::User=root download -qq prometheus && dpkg-deb --extract prometheus_*.deb .)
install "$folder/usr/bin/promtool" /usr/local/bin/promtool
