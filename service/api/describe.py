"""The page at /docs: what the API is, to read and to try. All of it is served from here."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from service.api.access import OPEN
from service.api.problems import NotFoundError

ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
"""What of the package is served, as what."""

router = APIRouter(dependencies=[OPEN], include_in_schema=False)


@router.get("/docs")
async def docs() -> Response:
    """The page, which runs its own script and no other."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Acclimate: the API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    ).body
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page), re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy}
    return Response(page, media_type="text/html", headers=headers)


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> Response:
    """A part of the page. Raises NotFoundError."""
    if asset not in ASSETS:
        raise NotFoundError("asset", f"one of {sorted(ASSETS)}")
    found = files("fastapi_offline").joinpath("static", asset).read_bytes()
    return Response(found, media_type=ASSETS[asset])
