"""What the page does over hours and when something is away: shapes, memory, long histories, a silent server."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from keyreel.store.records import NewFile
from keyreel.worker.previews import encode_strip
from tests.server.live import LiveServer
from tests.web.browser import PHONE, ROOT, add_files, compose, generate, opened, viewer, watched

SUNRISE = ROOT / "examples" / "sunrise.png"
NIGHT = ROOT / "examples" / "night.png"
URLS = """
  window.open_urls = new Set();
  const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (file) => { const url = create(file); window.open_urls.add(url); return url; };
  URL.revokeObjectURL = (url) => { window.open_urls.delete(url); revoke(url); };
"""
"""Counts the object URLs that are not released."""

pytestmark = pytest.mark.slow
