#!/usr/bin/env bash
# From a fresh machine to a refined model, on generated B-scans and reports. Everything lands in
# quickstart/; a second run reuses what is there, and removing that folder starts afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./install.sh

export PATH="$PWD/.venv/bin:$PATH"
# Models this narrow gain nothing from a second thread, and digits do not depend on how many there are.
export OMP_NUM_THREADS=1
out="$PWD/quickstart"
mkdir -p "$out"
cd RetFiner

echo; echo "== 1  Phantoms: B-scans with reports, and four labelled tasks of other patients"
python -m retfiner.data.phantoms --output "$out/phantoms" --patients 1000

text_encoder() {
  echo; echo "== 3  Text encoder: a small BERT, its words and how to read them learned from the reports"
  [ -d "$out/bert" ] && echo "reusing $out/bert" && exit
  exec python build_text_encoder.py --from_reports "$out/phantoms/pairs.csv" --output "$out/bert" \
    --layers 2 --width 64
}
text_encoder >"$out/bert.log" 2>&1 &  # beside step 2, on a core of its own
beside=$!
trap 'kill "$beside" 2>/dev/null || true' EXIT

echo; echo "== 2  Base model: a small ViT, pretrained on the B-scans alone"
[ -f "$out/base.pth" ] && echo "reusing $out/base.pth" ||
  python pretrain_base.py --images "$out/phantoms/images" --output "$out/base.pth" \
    --image_size 64 --patch_size 8 --width 64 --depth 4 --epochs 8 --lr 2e-3
built=0
wait "$beside" || built=$?
cat "$out/bert.log"
[ "$built" = 0 ] || exit "$built"

probing=(--data_root "$out/phantoms/tasks" --results "$out/results" --feature_store "$out/features")
probe_base() {  # beside step 4; step 6 finds what is done, and does the rest
  [ -f "$out/refined.done" ] && exit
  cd ../linear_probing
  exec python probe.py --weights base="$out/base.pth" "${probing[@]}" --num_workers 1
}
probe_base >"$out/base_probe.log" 2>&1 &
beside=$!

echo; echo "== 4  Refinement: the base model learns from the reports"
if [ -f "$out/refined.done" ]; then
  cat "$out/refined.done"
else
  rm -rf "$out/models"  # of an interrupted or an older run
  python train.py --model_weights "$out/base.pth" --text_encoder "$out/bert" \
    --train_csv "$out/phantoms/pairs.csv" --output_dir "$out/models" --note quickstart \
    --batch_size 32 --lr 4e-3 --exponential_temp --max_epochs 8 --image_cache --num_workers 1 \
    --precision 32-true  # of a model this narrow bfloat16 is no faster, and digits differ by machine
  echo "reusing $(echo "$out"/models/*/best-model.ckpt)" >"$out/refined.done"
fi

echo; echo "== 5  Extraction: the refined backbone alone"
python get_vision_backbone_for_linprobing.py \
  --path_to_model "$out"/models/*/best-model.ckpt --output "$out/refined.pth"

wait "$beside" || true  # whatever it met, the same command is about to meet
echo; echo "== 6  Probing: do the refined features tell more? Four tasks of patients never seen, five seeds"
cd ../linear_probing
python probe.py --weights base="$out/base.pth" refined="$out/refined.pth" "${probing[@]}"
