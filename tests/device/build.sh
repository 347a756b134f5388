#!/bin/sh
# Builds what run.sh needs into a folder that can be brought to another machine: build.sh FOLDER
#   FOLDER/bcosc  FOLDER/throughput  FOLDER/device  FOLDER/training  FOLDER/golden
# PROFILE is the profile of cargo: release unless set; `dev` for a trial. Needs cargo and python3.
set -eu
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
# The whole workspace each time, so that the features of dependencies are the same.
{
    cargo build --workspace --bins --examples --profile "$profile" --message-format json-render-diagnostics
    cargo test --workspace --no-run --profile "$profile" --message-format json-render-diagnostics
} >"$out/build.json"
python3 - "$out" <<'PYTHON'
import json
import pathlib
import shutil
import sys

out = pathlib.Path(sys.argv[1])
wanted = {("bcosc", "bin", False), ("throughput", "example", False), ("device", "test", True), ("training", "test", True),
          ("golden", "test", True)}
for line in open(out / "build.json"):
    built = json.loads(line)
    target = built.get("target", {})
    key = (target.get("name"), (target.get("kind") or [""])[0], built.get("profile", {}).get("test"))
    if built.get("executable") and key in wanted:
        shutil.copy2(built["executable"], out / key[0])
        wanted.discard(key)
(out / "build.json").unlink()
raise SystemExit(f"not built: {sorted(name for name, *_ in wanted)}" if wanted else 0)
PYTHON
ls -l "$out"
