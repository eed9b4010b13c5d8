"""Folder pages as web servers write them, each by its own template: (path, sizes of files, folders) -> HTML.

Only what no reader of listings looks at (styles, icons, scripts) is shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from urllib.parse import quote

Template = Callable[[str, Mapping[str, int], Sequence[str]], str]
TREE: dict[str, bytes] = {
    "a b.bin": b"x" * 1234,
    "c&d;é.txt": b"y" * 77,
    "data.v1.json": b"{}",
    "empty": b"",
    "sub/inner.bin": b"z" * 40_000,
    "sub/deeper/last+one.txt": b"w" * 9,
    "with space/100%.txt": b"v" * 3,
}
HOST = "{host}"
"""Stands for the server's own name and port in pages with absolute links."""


def _human(size: int) -> str:
    return f"{size / 1024:.1f}K" if size >= 1024 else str(size)


def nginx(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    rows = [f'<a href="{quote(n)}/">{escape(n)}/</a>{" " * 20}24-Nov-2026 12:00       -' for n in folders]
    rows += [
        f'<a href="{quote(n)}">{escape(n)}</a>{" " * 20}24-Nov-2026 12:00  {s:8}' for n, s in files.items()
    ]
    head = f"Index of {escape(path)}"
    return (
        f"<html>\r\n<head><title>{head}</title></head>\r\n<body>\r\n<h1>{head}</h1><hr><pre>"
        '<a href="../">../</a>\r\n' + "\r\n".join(rows) + "\r\n</pre><hr></body>\r\n</html>\r\n"
    )


def apache(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    def row(name: str, slash: str, alt: str, size: str) -> str:
        return (
            f'<tr><td valign="top"><img src="/icons/{alt}.gif" alt="[{alt}]"></td><td><a href="{quote(name)}{slash}">'
            f'{escape(name)}{slash}</a></td><td align="right">2026-11-24 12:00  </td><td align="right">{size}</td>'
            "<td>&nbsp;</td></tr>"
        )

    rows = [row(n, "/", "DIR", "  - ") for n in folders] + [
        row(n, "", "TXT", _human(s)) for n, s in files.items()
    ]
    shown = escape(path.rstrip("/") or "/")
    return (
        f"<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2 Final//EN\">\n<html>\n <head>\n  <title>Index of {shown}</title>\n"
        f" </head>\n <body>\n<h1>Index of {shown}</h1>\n  <table>\n   <tr><th valign=\"top\"><img src=\"/icons/blank.gif\" "
        'alt="[ICO]"></th><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th><th>'
        '<a href="?C=S;O=A">Size</a></th><th><a href="?C=D;O=A">Description</a></th></tr>\n'
        '   <tr><th colspan="5"><hr></th></tr>\n<tr><td valign="top"><img src="/icons/back.gif" alt="[PARENTDIR]"></td>'
        f'<td><a href="{escape(path.rstrip("/").rpartition("/")[0])}/">Parent Directory</a></td><td>&nbsp;</td>'
        '<td align="right">  - </td><td>&nbsp;</td></tr>\n' + "\n".join(rows)
        + '\n   <tr><th colspan="5"><hr></th></tr>\n</table>\n<address>Apache/2.4.57 (Debian) Server at h Port 80'
        "</address>\n</body></html>\n"
    )  # fmt: skip


def lighttpd(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    def row(name: str, slash: str, kind: str, size: str) -> str:
        return (
            f'<tr{" class=d" if slash else ""}><td class="n"><a href="{quote(name)}{slash}">{escape(name)}</a>{slash}</td>'
            f'<td class="m">2026-Nov-24 12:00:00</td><td class="s">{size}</td><td class="t">{kind}</td></tr>'
        )

    rows = [row(n, "/", "Directory", "- &nbsp;") for n in folders]
    rows += [row(n, "", "application/octet-stream", _human(s)) for n, s in files.items()]
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">\n<head>\n'
        f"<title>Index of {escape(path)}</title>\n</head>\n<body>\n<h2>Index of {escape(path)}</h2>\n"
        '<div class="list">\n<table summary="Directory Listing" cellpadding="0" cellspacing="0">\n<thead><tr>'
        '<th class="n">Name</th><th class="m">Last Modified</th><th class="s">Size</th><th class="t">Type</th></tr>'
        '</thead>\n<tbody>\n<tr class="d"><td class="n"><a href="../">..</a>/</td><td class="m">&nbsp;</td>'
        '<td class="s">- &nbsp;</td><td class="t">Directory</td></tr>\n' + "\n".join(rows)
        + '\n</tbody>\n</table>\n</div>\n<div class="foot">lighttpd/1.4.69</div>\n</body>\n</html>\n'
    )  # fmt: skip


def caddy(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """modules/caddyhttp/fileserver/browse.html: the title is the folder's name alone, links begin with `./`."""

    def row(name: str, slash: str, cells: str) -> str:
        return (
            f'<tr class="file">\n<td></td>\n<td>\n<a href="./{quote(name)}{slash}">\n<svg xmlns="http://www.w3.org/2000/svg" '
            f'width="24" height="24"><path d="M0 0h24v24H0z"></path></svg>\n<span class="name">{escape(name)}{slash}</span>\n'
            f'</a>\n</td>\n{cells}\n<td class="timestamp hideable">\n<time datetime="2026-11-24T12:00:00Z">11/24/2026 '
            '12:00:00 PM +00:00</time>\n</td>\n<td class="hideable"></td>\n</tr>'
        )

    def size(count: int) -> str:
        return (
            f'<td class="size" data-size="{count}">\n<div class="sizebar">\n<div class="sizebar-bar"></div>\n'
            f'<div class="sizebar-text">\n{_human(count)}iB\n</div>\n</div>\n</td>'
        )

    rows = [row(n, "/", "<td>&mdash;</td>") for n in folders] + [
        row(n, "", size(s)) for n, s in files.items()
    ]
    parts = path.strip("/").split("/")
    crumbs = '<a href="../">/</a>' + "".join(f'<a href="./">{escape(p)}</a>/' for p in parts if p)
    return (
        f"<!DOCTYPE html>\n<html>\n\t<head>\n\t\t<title>{escape(parts[-1])}</title>\n\t\t<meta charset=\"utf-8\">\n<style>"
        "td a { color: #006ed3; }</style>\n\t</head>\n\t<body onload=\"initPage()\">\n\t\t<header>\n<div class=\"breadcrumbs\">"
        f"Folder Path</div>\n<h1>\n{crumbs}\n</h1>\n</header>\n<main>\n<div class=\"meta\">\n<div id=\"summary\">\n"
        f"<span class=\"meta-item\"><b>{len(folders)}</b> directories</span>\n<span class=\"meta-item\"><b>{len(files)}</b> files"
        "</span>\n</div>\n<a href=\"javascript:queryParam('layout', '')\" id=\"layout-list\" class='layoutcurrent'>\nList\n</a>\n"
        "<a href=\"javascript:queryParam('layout', 'grid')\" id=\"layout-grid\" class='layout'>\nGrid\n</a>\n</div>\n"
        "<div class='listing'>\n<table aria-describedby=\"summary\">\n<thead>\n<tr>\n<th></th>\n<th>\n<a href=\"?sort=name"
        "&order=desc\">\nName\n</a>\n</th>\n<th><a href=\"?sort=size&order=asc\">Size</a></th>\n</tr>\n</thead>\n<tbody>\n"
        '<tr>\n<td></td>\n<td>\n<a href="..">\n<span class="go-up">Up</span>\n</a>\n</td>\n<td></td>\n</tr>\n'
        + "\n".join(rows)
        + '\n</tbody>\n</table>\n</div>\n</main>\n<footer>\nServed with\n<a rel="noopener noreferrer" '
        'href="https://caddyserver.com">\n<svg></svg>\n</a>\n</footer>\n<script>const x = "<a href=evil>evil</a>";</script>\n'
        "</body>\n</html>\n"
    )  # fmt: skip


def jetty(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """Resource.getListHTML: links are absolute paths, sizes `%,d bytes`."""

    def row(name: str, slash: str, size: str) -> str:
        return (
            f'<tr><td class="name"><a href="{quote(path + name)}{slash}">{escape(name)}{slash}&nbsp;</a></td>'
            f'<td class="lastmodified">24.11.2026, 12:00:30&nbsp;</td><td class="size">{size}&nbsp;</td></tr>'
        )

    rows = [row(n, "/", "4,096 bytes") for n in folders] + [
        row(n, "", f"{s:,} bytes") for n, s in files.items()
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<link href="jetty-dir.css" rel="stylesheet" />\n'
        f'<title>Directory: {escape(path)}</title>\n</head>\n<body>\n<h1 class="title">Directory: {escape(path)}</h1>\n'
        '<table class="listing">\n<thead>\n<tr><th class="name"><a href="?C=N&O=D">Name&nbsp; &#8679;</a></th>'
        '<th class="lastmodified"><a href="?C=M&O=A">Last Modified</a></th><th class="size"><a href="?C=S&O=A">Size</a></th>'
        f'</tr>\n</thead>\n<tbody>\n<tr><td class="name"><a href="{quote(path)}../">Parent Directory</a></td>'
        '<td class="lastmodified">-</td><td>-</td></tr>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>\n</body></html>\n"
    )


def tomcat(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """DefaultServlet.renderHtml: the heading has the path in brackets, links are absolute paths."""

    def row(name: str, slash: str, size: str) -> str:
        return (
            f'<tr>\r\n<td align="left">&nbsp;&nbsp;\r\n<a href="{quote(path + name)}{slash}"><tt>{escape(name)}{slash}</tt></a>'
            f'</td>\r\n<td align="right"><tt>{size}</tt></td>\r\n<td align="right"><tt>Tue, 24 Nov 2026 12:00:00 GMT</tt>'
            "</td>\r\n</tr>\r\n"
        )

    rows = [row(n, "/", "&nbsp;") for n in folders] + [
        row(n, "", f"{s / 1024:.1f} KiB") for n, s in files.items()
    ]
    up = path.rstrip("/").rpartition("/")[0] + "/"
    said = f"Directory Listing For [{escape(path)}]"
    return (
        f'<!doctype html><html>\r\n<head>\r\n<title>{said}</title>\r\n<style>h1 {{color:white}}</style>\r\n</head>\r\n<body>'
        f'<h1>{said} - <a href="{quote(up)}"><b>Up To [{escape(up)}]</b></a></h1><hr class="line">\r\n<table width="100%" '
        'cellspacing="0" cellpadding="5" align="center">\r\n<tr>\r\n<td align="left"><font size="+1"><strong>'
        '<a href="?C=N;O=A">Filename</a></strong></font></td>\r\n<td align="center"><font size="+1"><strong>'
        '<a href="?C=S;O=A">Size</a></strong></font></td>\r\n<td align="right"><font size="+1"><strong><a href="?C=M;O=A">'
        "Last Modified</a></strong></font></td>\r\n</tr>" + "".join(rows)
        + '</table>\r\n<hr class="line"><h3>Apache Tomcat/9.0.83</h3></body>\r\n</html>'
    )  # fmt: skip


def iis(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """Date and size stand before each link, links are absolute paths, tags are in capitals."""
    rows = [
        f'11/24/2026 12:00 PM        &lt;dir&gt; <A HREF="{quote(path + n)}/">{escape(n)}</A><br>'
        for n in folders
    ]
    rows += [
        f'11/24/2026 12:00 PM {s:12} <A HREF="{quote(path + n)}">{escape(n)}</A><br>'
        for n, s in files.items()
    ]
    up = path.rstrip("/").rpartition("/")[0] + "/"
    return (
        f"<html><head><title>files.example - {escape(path)}</title></head><body><H1>files.example - {escape(path)}</H1>"
        f'<hr>\r\n\r\n<pre><A HREF="{quote(up)}">[To Parent Directory]</A><br><br> ' + " ".join(rows)
        + "</pre><hr></body></html>"
    )  # fmt: skip


def artifactory(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """The heading has the repository and the path in it, without what stands before."""
    rows = [f'<a href="{quote(n)}/">{escape(n)}/</a>  24-Nov-2026 12:00    -' for n in folders]
    sizes = {n: f"{s / 1024:.2f} KB" if s >= 1024 else f"{s} bytes" for n, s in files.items()}
    rows += [f'<a href="{quote(n)}">{escape(n)}</a>  24-Nov-2026 12:00  {s}' for n, s in sizes.items()]
    head = f"Index of {escape(path.strip('/'))}"
    return (
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">\n<html>\n<head><meta name="robots" content="noindex" />\n'
        f"<title>{head}</title>\n</head>\n<body>\n<h1>{head}</h1>\n<pre>Name    Last modified      Size</pre><hr/>\n<pre>"
        '<a href="../">../</a>\n' + "\n".join(rows)
        + '\n</pre>\n<hr/><address style="font-size:small;">Artifactory/7.31.13 Server at h Port 80</address></body></html>'
    )  # fmt: skip


def nexus2(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """/content/repositories/…: links are absolute URLs."""

    def row(name: str, slash: str, size: str) -> str:
        url = f"http://{HOST}{quote(path + name)}{slash}"
        return (
            f'<tr>\n<td><a href="{url}">{escape(name)}{slash}</a></td>\n<td>Tue Nov 24 12:00:00 UTC 2026\n</td>\n'
            f'<td align="right">\n{size}\n</td>\n<td>\n&nbsp;\n</td>\n</tr>'
        )

    rows = [row(n, "/", "&nbsp;") for n in folders] + [row(n, "", str(s)) for n, s in files.items()]
    return (
        f"<html>\n<head>\n<title>Index of {escape(path)}</title>\n<link rel=\"icon\" href=\"http://{HOST}/favicon.ico\"/>\n"
        f"</head>\n<body>\n<h1>Index of {escape(path)}</h1>\n<table cellspacing=\"10\">\n<tr>\n<th align=\"left\">Name</th>\n"
        "<th>Last Modified</th>\n<th>Size</th>\n<th>Description</th>\n</tr>\n<tr>\n<td>\n<a href=\"../\">Parent Directory</a>\n"
        "</td>\n</tr>\n" + "\n".join(rows) + "\n</table>\n</body>\n</html>\n"
    )  # fmt: skip


def nexus3(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    """/service/rest/repository/browse/…: folders are relative, files are absolute URLs below /repository/."""
    _, _, inner = path.partition("/service/rest/repository/browse/")
    said = "/" + inner.partition("/")[2]
    content = f"http://{HOST}/repository/{quote(inner)}"
    rows = [f'<tr>\n<td><a href="{quote(n)}/">{escape(n)}</a></td>\n<td>&nbsp;</td>\n</tr>' for n in folders]
    rows += [
        f'<tr>\n<td><a href="{content}{quote(n)}">{escape(n)}</a></td>\n<td>Tue Nov 24 12:00:00 UTC 2026</td>\n'
        f'<td align="right">{s}</td>\n<td></td>\n</tr>'
        for n, s in files.items()
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>Index of {escape(said)}</title>\n<link rel="icon" type="image/png" '
        f'href="http://{HOST}/static/rapture/resources/favicon-32x32.png">\n</head>\n<body class="htmlIndex">\n<h1>Index of '
        f'{escape(said)}</h1>\n<table cellspacing="10">\n<tr>\n<th align="left">Name</th>\n<th>Last Modified</th>\n'
        '<th>Size</th>\n<th>Description</th>\n</tr>\n<tr>\n<td><a href="../">Parent Directory</a></td>\n</tr>\n'
        + "\n".join(rows) + "\n</table>\n</body>\n</html>\n"
    )  # fmt: skip


def python(path: str, files: Mapping[str, int], folders: Sequence[str]) -> str:
    rows = [f'<li><a href="{quote(n)}/">{escape(n)}/</a></li>' for n in folders]
    rows += [f'<li><a href="{quote(n)}">{escape(n)}</a></li>' for n in files]
    head = f"Directory listing for {escape(path)}"
    return (
        f'<!DOCTYPE HTML>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{head}</title>\n</head>\n<body>\n'
        f"<h1>{head}</h1>\n<hr>\n<ul>\n" + "\n".join(rows) + "\n</ul>\n<hr>\n</body>\n</html>\n"
    )


SERVERS: dict[str, Template] = {
    f.__name__: f
    for f in (nginx, apache, lighttpd, caddy, jetty, tomcat, iis, artifactory, nexus2, nexus3, python)
}
TELL_SIZES = {"nginx", "caddy", "jetty", "iis"}
"""Whose pages have every size to the byte."""
