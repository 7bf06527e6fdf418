#!/usr/bin/env bash
# What there is to measure on a machine with one GPU of 80 GB and no network, in at most 10 minutes.
#
#   bash benchmarks/gpu.sh            all parts at full size; random weights, pictures of noise
#   bash benchmarks/gpu.sh --tiny     the same script at small sizes on a CPU, to see that it works
#   bash benchmarks/gpu.sh --dry      the commands, their limits, and what the last line will hold
#
# Each part has a limit of its own, so that one that hangs or fails leaves the others theirs:
#   step       expressions a second and peak memory at LLaVA-1.5-7B and SAM ViT-H, beside LISA's
#              arrangement, in training and evaluation
#   full_size  seconds a step, peak memory, and the share of each part of the model, the same size
#   qwen       a step of Qwen3-VL-4B and SAM 2.1 large
#   recipe     some steps of every stage that makes the bundled backbones, with --device cuda
#
# The last line is one JSON object: gpu, commit, aims (what is wanted, what was measured, whether it
# is met; null where it was not, and with --tiny), and each part's seconds, exit code (124: its limit)
# and figures, with the end of what it said where it did not end well: exit code 1 then. PYTHON: another
# interpreter.
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python}
mode=${1:-full}
case $mode in
  -h | --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '/^set -u/d'; exit 0 ;;
  full | --tiny | --dry) ;;
  *) echo "$mode: not known; --help says what there is" >&2; exit 2 ;;
esac
export HF_HUB_OFFLINE=1 MLFLOW_TRACKING_URI=none
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT

words=+model.sizes.tokenizer=keyseg/tiny/weights/llava
few='{train: 60, val: 3, test: 3}' # of the generated pictures: more would only cost time
data=("data.prepare.refer=$few" "data.prepare.reason=$few" "paths.data=$folder/data")
step=(benchmarks/step.py --images 4 --rounds 5 --together --overrides "${data[@]}"
  model=llava_1_5_7b model.init=random "$words" prompt=lisa)
full_size=(benchmarks/full_size.py --variants full)
qwen=(benchmarks/full_size.py mask=sam2_large)
recipe=(-m keyseg.tiny --device cuda --scenes 200 --held-out 20 --scored-batches 1
  --sam-steps 20 --vision-steps 20 --words-steps 10 --llava-steps 20)
if [ "$mode" = --tiny ]; then
  step=(benchmarks/step.py --images 2 --rounds 1 --together --threads 1 --overrides "${data[@]}"
    model=tiny)
  full_size+=(--model tiny --steps 1 --images 1 --device cpu)
  text='hidden_size:32,intermediate_size:48,num_hidden_layers:3,num_attention_heads:4,num_key_value_heads:2,head_dim:8'
  rope='rope_parameters:{mrope_section:[2,1,1]}'
  vision='depth:3,hidden_size:32,intermediate_size:48,num_heads:2,out_hidden_size:32,num_position_embeddings:64,deepstack_visual_indexes:[0,1]'
  hiera='hidden_size:8,num_attention_heads:1,blocks_per_stage:[1,2,2,1],embed_dim_per_stage:[8,16,32,64],num_attention_heads_per_stage:[1,1,2,2],window_size_per_stage:[4,4,4,2],global_attention_blocks:[4]'
  qwen+=("model.sizes={text:{$text,$rope},vision:{$vision}}"
    "model.mask.sizes.vision_config={backbone_config:{$hiera},backbone_channel_list:[64,32,16,8]}"
    --steps 1 --images 1 --device cpu)
  recipe=(-m keyseg.tiny --device cpu --threads 1 --scenes 40 --held-out 8 --scored-batches 1
    --sam-steps 2 --vision-steps 2 --words-steps 2 --llava-steps 2)
fi
qwen+=(--variants full --model qwen3_vl_4b)
recipe+=(--work "$folder/work" --out "$folder/out")

# NAME SECONDS ARGUMENTS...: one part; what it says goes to the screen and is kept.
part() {
  local name=$1 limit=$2
  shift 2
  if [ "$mode" = --dry ]; then
    echo "$name, at most $limit s: $PYTHON $*"
    return
  fi
  [ "$mode" = --tiny ] && limit=$((4 * limit)) # who knows how busy a CPU is
  echo "== $name, at most $limit s: $PYTHON $*"
  local began=$SECONDS
  timeout -k 5 "$limit" "$PYTHON" "$@" 2>&1 | tee "$folder/$name.said"
  echo "${PIPESTATUS[0]} $((SECONDS - began))" >"$folder/$name.ended"
}

part step 240 "${step[@]}"
part full_size 130 "${full_size[@]}"
part qwen 120 "${qwen[@]}"
part recipe 80 "${recipe[@]}"
if [ "$mode" = --dry ]; then
  echo "last line: {benchmark, gpu, commit, tiny, aims: {training_times: {aim: 4, found, met}," \
    "evaluation_times: {aim: 5, ...}, memory_share: {aim: 1, ...}}, parts: {NAME: {seconds, code," \
    "figures, said}}}"
  exit 0
fi
"$PYTHON" - "$folder" "$mode" <<'PYTHON'
import json
import subprocess
import sys
from pathlib import Path

folder, tiny = Path(sys.argv[1]), sys.argv[2] == "--tiny"


def line(*command):
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return "; ".join(said.split("\n")).strip("; ") or None


def read(name):
    code, seconds = map(int, (folder / f"{name}.ended").read_text().split())
    said = (folder / f"{name}.said").read_text(errors="replace").splitlines()
    figures = []
    for each in said:
        try:
            figures += [json.loads(each)] if each.startswith("{") else []
        except ValueError:
            pass
    ended_well = {} if code == 0 and figures else {"said": said[-15:]}
    return {"seconds": seconds, "code": code, "figures": figures, **ended_well}


parts = {name: read(name) for name in ("step", "full_size", "qwen", "recipe")}
[step] = parts["step"]["figures"][-1:] or [{}]


def aim(wanted, found, met):
    asked = found is not None and not tiny  # at another size the aims mean nothing
    return {"aim": wanted, "found": found, "met": met(found, wanted) if asked else None}


def ours(kind, name):
    return step[kind]["all"][name] if kind in step else None


theirs = step["training"]["LISA's arrangement"]["peak_mib"] if step else None
share = ours("training", "peak_mib") / theirs if theirs else None
more, less = (lambda a, b: a >= b), (lambda a, b: a <= b)
gpu = line("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
found = {
    "benchmark": "gpu",
    "gpu": gpu,
    "commit": line("git", "rev-parse", "--short", "HEAD"),
    "tiny": tiny,
    "aims": {
        "training_times": aim(4, ours("training", "times"), more),
        "evaluation_times": aim(5, ours("evaluation", "times"), more),
        "memory_share": aim(1, share, less),
    },
    "parts": parts,
}
print(json.dumps(found))
sys.exit(any(part["code"] for part in parts.values()))
PYTHON
