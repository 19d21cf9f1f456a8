#!/usr/bin/env bash
# What does each loss give, on your own data? Refines without each loss, with each alone, and with
# identical reports treated as published; probes all of them and the base model; prints one table.
#
#   ./ablate.sh --model_weights base.pth --train_csv pairs.csv --data_root tasks --output ablation \
#       [--only "full itc_alone"] [any other flag of train.py] [-- any flag of probe.py]
#
# Variants: full, without_itc, without_itm, without_mlm, without_gm, itc_alone, itm_alone, mlm_alone,
# gm_alone, duplicates_ignored; --only takes some of them, full always included.
# What is finished is kept: the same command goes on where it was interrupted.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
fail() { printf 'error: %s\n' "$1" >&2; exit 2; }

data_root="" output="" weights="" only="" train=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  case "$1" in
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --data_root | --output | --model_weights | --only)
      [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --data_root) data_root="$(realpath -m -- "$2")"; shift 2 ;;
    --output) output="$(realpath -m -- "$2")"; shift 2 ;;
    --model_weights) weights="$2"; [ ! -e "$2" ] || weights="$(realpath -- "$2")"; shift 2 ;;
    --only) only=" full $2 "; shift 2 ;;
    --losses | --loss_weights | --duplicate_reports | --output_dir | --note | --resume)
      fail "$1 is what ablate.sh sets itself" ;;
    *) train+=("$1"); shift ;;
  esac
done
[ $# -eq 0 ] || shift
[ -n "$weights" ] && [ -n "$data_root" ] && [ -n "$output" ] ||
  fail "--model_weights, --data_root and --output are needed; see --help"

settings="$(printf '%q ' "$weights" "${train[@]}")"
if [ -f "$output/settings" ] && [ "$(cat "$output/settings")" != "$settings" ]; then
  fail "$output holds an ablation with other settings; give another --output"
fi

wanted() { [ -z "$only" ] || [[ "$only" == *" $1 "* ]]; }
known=()
check() { # name, flags of train.py: told before the hours that other variants take
  local name="$1"
  shift
  known+=("$name")
  wanted "$name" && [ ! -f "$output/models/$name.done" ] || return 0
  PYTHONPATH="$here" "$python" -c "
from retfiner.common.errors import run_entry_point
def main():
    from retfiner.common.cli import parse
    from retfiner.config import RefineConfig
    parse(RefineConfig, '')
run_entry_point(main)" \
    --model_weights "$weights" "${train[@]}" "$@" ||
    fail "the variant $name does not go with these flags; --only names those that are to be trained"
}
variants=()
variant() { # name, flags of train.py
  local name="$1" folder="$output/models/$1"
  shift
  wanted "$name" || return 0
  variants+=("$name")
  echo; echo "== $name: $*"
  if [ ! -f "$folder.done" ]; then
    rm -rf "$folder"  # what an interrupted run left
    "$python" "$here/train.py" --model_weights "$weights" "${train[@]}" "$@" \
      --output_dir "$folder"
    touch "$folder.done"
  fi
  [ -f "$output/$name.pth" ] || "$python" "$here/get_vision_backbone_for_linprobing.py" \
    --path_to_model "$folder"/*/best-model.ckpt --output "$output/$name.pth"
}
each() { # a function, once for each variant
  "$1" full --losses itc itm mlm gm
  "$1" without_itc --losses itm mlm gm
  "$1" without_itm --losses itc mlm gm
  "$1" without_mlm --losses itc itm gm
  "$1" without_gm --losses itc itm mlm
  "$1" itc_alone --losses itc
  "$1" itm_alone --losses itm
  "$1" mlm_alone --losses mlm
  "$1" gm_alone --losses gm
  "$1" duplicates_ignored --losses itc itm mlm gm --duplicate_reports ignore
}
each check
for name in $only; do
  [[ " ${known[*]} " == *" $name "* ]] || fail "--only: there is no variant $name"
done
mkdir -p "$output"
printf '%s' "$settings" >"$output/settings"
each variant

cd "$here/../linear_probing"
probe() {
  # What probe.py says to do next is what follows here anyway.
  "$python" probe.py --init_weights "$weights" --data_root "$data_root" \
    --results "$output/results" --feature_store "$output/features" "$@" | sed '/^Next:/,$d'
}
echo; echo "== base"
probe --model base --version ablation "$@"
for name in "${variants[@]}"; do
  echo; echo "== $name"
  probe --model "$name" --version ablation --ft_weights "$output/$name.pth" "$@"
done
[ ${#variants[@]} -gt 1 ] || { echo "full alone: nothing to compare with"; exit 0; }
others=("${variants[@]:1}")
echo
"$python" report.py --results "$output/results" --output "$output/report" --base ablation/full \
  --refined ablation/base "${others[@]/#/ablation/}"
