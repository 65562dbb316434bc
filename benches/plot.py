"""Plot: CPU per request relative to nginx, as bars."""

import statistics

COLOURS = {
    "gateway": "#2f6fde",
    "nginx": "#8a8f98",
    "haproxy": "#b0a05a",
    "envoy": "#b0644f",
    "caddy": "#5a9e8f",
    "traefik": "#8f6ab0",
}
MOST = 4.0


def svg(results, cases):
    loop = results["closed_loop"]
    names = [name for name in results["versions"] if name in COLOURS]
    rows, y = [], 34
    for case, title in cases.items():
        nginx = statistics.median(one["cpu_us"] for one in loop[case]["nginx"])
        rows.append(f'<text x="10" y="{y + 4}" class="case">{title}</text>')
        y += 12
        for name in names:
            if not loop[case].get(name):
                continue
            ratio = statistics.median(one["cpu_us"] for one in loop[case][name]) / nginx
            width = 430 * min(ratio, MOST) / MOST
            more = " →" if ratio > MOST else ""
            rows.append(f'<text x="86" y="{y + 10}" class="name">{name}</text>')
            rows.append(f'<rect x="94" y="{y}" width="{width:.0f}" height="12" fill="{COLOURS[name]}"/>')
            rows.append(f'<text x="{100 + width:.0f}" y="{y + 10}">{ratio:.2f}{more}</text>')
            y += 16
        y += 14
    one = 94 + 430 / MOST
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="620" height="{y}" viewBox="0 0 620 {y}" role="img">'
        "<title>CPU per request, nginx = 1, lower is better</title>"
        "<style>text{font:11px sans-serif;fill:#777}.case{font-weight:bold}.name{text-anchor:end}</style>"
        '<text x="10" y="14">CPU per request, nginx = 1; lower is better</text>'
        f'<line x1="{one:.0f}" y1="24" x2="{one:.0f}" y2="{y}" stroke="#999" stroke-dasharray="3"/>'
        + "".join(rows)
        + "</svg>\n"
    )
