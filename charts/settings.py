"""Writes the settings that the program prints into the chart's schema.

    charts/settings.py target/debug/simplechat-gateway
"""

import json
import pathlib
import subprocess
import sys

SCHEMA = pathlib.Path(__file__).parent / "simplechat-gateway" / "values.schema.json"

# Settings that other values of the chart set. GATEWAY_CONFIG: the chart mounts no configuration file.
SET_BY_THE_CHART = {
    "TENANT_ID", "CLIENT_ID", "GATEWAY_LISTEN", "GATEWAY_OPS_LISTEN", "GATEWAY_UPSTREAM_URL",
    "GATEWAY_UPSTREAM_HOST", "GATEWAY_EXTERNAL_ACCESS", "GATEWAY_EXPOSURE_ACCEPTED_BY",
    "GATEWAY_PUBLIC_URLS", "GATEWAY_DRAIN_DELAY", "GATEWAY_DRAIN_TIMEOUT", "GATEWAY_CONFIG",
    "SESSION_TYPE", "SESSION_FILE_DIR", "GATEWAY_STATE_DIR",
}


# Introduces the standard names that are not in the table.
ALSO_READ = "# Also read, with the meaning and default of the OpenTelemetry specification: "


def printed(program, environment):
    """Output of `settings`, as paragraphs. It ends with 78 when a value is wrong, as here."""
    output = subprocess.run([program, "settings"], env=environment, text=True, capture_output=True)
    assert output.returncode == 78, output
    return output.stdout.strip().split("\n\n")


def table(paragraphs):
    """Name, value, meaning and type of each setting in the table."""
    for entry in paragraphs:
        # Heading of a group.
        if entry.startswith("# "):
            continue
        first, meaning, value_type = entry.split("\n")
        name, value = first.split("=", 1)
        # SIGHUP does not apply: a container's environment does not change.
        yield name, value, meaning.strip(), value_type.strip().removesuffix("; reloadable")


def main(program):
    paragraphs = printed(program, {})
    assert paragraphs[-1].startswith(ALSO_READ), paragraphs[-1]
    tuning = paragraphs[-1].removeprefix(ALSO_READ).split(", ")
    names = [name for name, *_ in table(paragraphs) if name != "GATEWAY_CONFIG"]
    settings, secrets = {}, {}
    for name, value, meaning, value_type in table(printed(program, dict.fromkeys(names, "x"))):
        # The values of secrets are masked.
        if value not in ("", "x"):
            secrets[name] = {"description": meaning, "$ref": "#/$defs/secret"}
        elif name not in SET_BY_THE_CHART:
            settings[name] = {"description": f"{meaning}. {value_type[0].upper()}{value_type[1:]}", "type": "string"}
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["settings"]["properties"] = settings
    schema["properties"]["settings"]["patternProperties"] = {
        f"^({'|'.join(tuning)})$": {
            "description": "Standard OpenTelemetry variable, with the specification's meaning and default",
            "type": "string",
        }
    }
    schema["properties"]["secrets"]["properties"] = secrets
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


main(*sys.argv[1:])
