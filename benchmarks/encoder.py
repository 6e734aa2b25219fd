"""An encoder's bundle beside what others offer for CPUs: speed and what it costs, in one run.

`--shape mini`: a fine-tuned MiniLM (6 layers of width 384), by default the stand-in's. `--shape base`:
BERT-base's shape (12 layers of 768) with random weights, so that only its agreement with itself in fp32
means something. Text to scores, int8 unless said; `undertone` runs through its `Predictor`.

Operations: 2 x the parameters in the layers (10.6 M, 85 M) x tokens: 0.25, 0.66, 2.7 GOP a text of 12,
31, 128 tokens for MiniLM, 2.0, 5.3, 22 for BERT-base. Bytes: those parameters once a call, 11 and 85 MB
in int8, four times that in fp32; MiniLM's stay in a cache. Floor: the operations at the rate of a large
int8 product, or the bytes at the bandwidth of reading that many, whichever takes longer; both are
measured in each run, and the table says how many floors (f) each variant takes. What is above: 25 or 49
products a text (Q, K and V as one), each too small for the full rate; the scales and sums of
activations before them; attention, layer norms and GELU in fp32; tokenizing (0.05 ms).

    python -m benchmarks.encoder [--shape base] [--threads 2] [--texts 2000]

`pip install -e .[benchmarks]` brings the others; the table names those that are missing. Peers get the
fast tokenizer too. The mixed texts' lengths are log-normal: median 24 tokens, sigma 0.7, within 4 and
128. Who takes batches as they come (32, padded to the longest) is timed on the first quarter of these.
Prints a table and one JSON line with the same values.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertConfig, BertModel

from undertone import models, tables
from undertone.deployment import backends, bundle, cores, latency
from undertone.deployment.predictor import Predictor
from undertone.labels import LabelSpace, Scores, activated
from undertone.measures import metrics
from undertone.networks import bases
from undertone.params import read_params

LENGTHS = (12, 31, 128)
LONGEST, BATCH = 128, 32
DROP, AGREEMENT = 0.002, 0.97  # what counts as the same model
CALIBRATION = {"mini": 256, "base": 48}  # texts
FP32, OWN = "pytorch fp32", "undertone"
Logits = NDArray[np.float32]
Feed = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Runner:
    """`scores` of texts, [n, labels]; `sorts`: it brings texts of like length together by itself."""

    scores: Callable[[Sequence[str]], Scores]
    sorts: bool


@dataclass(frozen=True)
class Material:
    """The one model that all run."""

    model: Any
    folder: Path  # `bundle` with our graphs, `backbone` for those who read transformers' folders
    calibration: Sequence[str]
    threads: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self.folder / "bundle" / "tokenizer.json"))
        tokenizer.enable_truncation(LONGEST)
        tokenizer.no_padding()
        return tokenizer

    @property
    def module(self) -> Any:
        return self.model.graph().module

    @property
    def plain(self) -> Path:
        return self.folder / "bundle" / "fp32.onnx"

    @property
    def backbone(self) -> Path:
        return self.folder / "backbone"

    def head(self, vectors: NDArray[np.float32]) -> Logits:
        linear = self.module.linear
        logits: Logits = vectors @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        return logits

    def feeds(self, texts: Sequence[str], size: int) -> list[Feed]:
        """Batches in the order of `texts`, each padded to its longest."""
        names = ["input_ids", "attention_mask", "token_type_ids"]
        rows = [one.ids for one in self.tokenizer.encode_batch_fast(list(texts))]
        return [backends.feed(rows[at : at + size], names) for at in range(0, len(rows), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=["mini", "base"], default="mini")
    parser.add_argument("--encoder", type=Path, default=Path("models/candidates/standin/bert"))
    parser.add_argument("--comments", type=Path, default=Path("data/standin/split.parquet"))
    parser.add_argument("--threads", type=int, default=cores.usable())
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=60)
    given = parser.parse_args()
    latency.set_threads(given.threads)
    trained = models.load(given.encoder)
    table = tables.read(given.comments, ("id", "text", "part"))
    validation = models.examples(table, "validation", trained.space)
    calibration = table[table["part"] == "train"]["text"].tolist()[: CALIBRATION[given.shape]]
    with tempfile.TemporaryDirectory() as folder:
        model = trained if given.shape == "mini" else random_base(trained, Path(folder))
        with redirect_stdout(sys.stderr):  # exporters draw their progress
            runners, missing = prepared(Material(model, Path(folder), calibration, given.threads))
        if given.shape == "base":  # nothing to be right about: how alike they decide
            few = list(validation.texts[:200])
            validation = models.Examples(few, model.space.decide(runners[FP32].scores(few)))
        quality = compared(runners, validation, model.space)
        tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "backbone")
        tokens = partial(counted, tokenizer)
        rows = latency.measure(
            {name: one.scores for name, one in runners.items()},
            {length: latency.texts_of(length, 16, tokens) for length in LENGTHS},
            batches=[1],
            repeats=given.repeats,
            seconds=1.5,
        )
        rates = throughput(runners, mixed(given.texts, tokens), given.rounds)
        floors = floor(model.graph().module, given.threads)
    ms = {(row["model"], row["tokens"]): row["p50_ms"] for row in rows}
    results = [
        {
            "model": name,
            "ms": {str(length): ms[name, length] for length in LENGTHS},
            "texts_per_second": rates[name],
            **quality[name],
        }
        for name in runners
    ]
    show(results, floors, missing)
    print(
        json.dumps(
            {
                "benchmark": "encoder",
                "shape": given.shape,
                "machine": latency.machine(given.threads),
                "floor_ms": floors,
                "missing": missing,
                "results": results,
            }
        )
    )


def counted(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text)["input_ids"])


def random_base(like: Any, folder: Path) -> Any:
    """BERT-base's shape with random weights, the tokenizer and the labels of `like`."""
    torch.manual_seed(0)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder / "random")
    settings = read_params().bert
    bases.materialise(settings.base, folder / "tokens")
    AutoTokenizer.from_pretrained(folder / "tokens").save_pretrained(folder / "random")
    space = LabelSpace.of("benchmark", like.space.labels)
    return models.create(settings, space, models.Start(seed=0, base=folder / "random"))


def prepared(material: Material) -> tuple[dict[str, Runner], dict[str, str]]:
    """What is measured, and what can't be: name → the package that is missing."""
    graph = material.model.graph()
    bundle.write(
        material.model,
        material.folder / "bundle",
        candidate="benchmark",
        opset=17,
        calibration=material.calibration,
        digests={},
    )
    graph.module.backbone.save_pretrained(material.backbone)
    AutoTokenizer.from_pretrained(graph.tokenizer.parent).save_pretrained(material.backbone)
    makers: dict[str, tuple[Callable[[Material], Callable[[Sequence[str]], Logits]], bool]] = {
        FP32: (partial(pytorch, dtype=torch.float32), False),
        "pytorch bf16": (partial(pytorch, dtype=torch.bfloat16), False),
        "sentence-transformers onnx": (sentences_onnx, True),
        "sentence-transformers openvino": (sentences_openvino, True),
        "optimum avx512_vnni": (optimum, False),
        "openvino": (openvino, False),
        "ctranslate2": (ctranslate2, False),
    }
    runners, missing = {}, {}
    for name, (make, sorts) in makers.items():
        try:
            runners[name] = Runner(scored(make(material), material.model.space), sorts)
        except ImportError as error:
            missing[name] = error.name or str(error)
    for variant in ("int8", "int8_openvino"):
        backend = "openvino" if variant.endswith("openvino") else "onnxruntime"
        if backends.installed(backend):
            loaded = Predictor.load(
                material.folder / "bundle", variant=variant, threads=material.threads
            )
            runners[f"{OWN} {variant}"] = Runner(loaded.scores, sorts=True)
        else:
            missing[f"{OWN} {variant}"] = backend
    return runners, missing


def scored(
    logits: Callable[[Sequence[str]], Logits], space: LabelSpace
) -> Callable[[Sequence[str]], Scores]:
    def run(texts: Sequence[str]) -> Scores:
        return space.calibrated(activated(logits(texts).astype(np.float64), many=space.many))

    return run


def pytorch(material: Material, *, dtype: torch.dtype) -> Callable[[Sequence[str]], Logits]:
    module = copy.deepcopy(material.module).to(dtype).eval()

    def run(texts: Sequence[str]) -> Logits:
        found = []
        with torch.inference_mode():
            for feed in material.feeds(texts, BATCH):
                batch = {name: torch.from_numpy(one) for name, one in feed.items()}
                found.append(module(**batch).logits.float().numpy())
        return np.concatenate(found)

    return run


def sentences(material: Material, backend: Any, file: str) -> Callable[[Sequence[str]], Logits]:
    """sentence-transformers as documented, batches of 32, and the head behind it."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(material.folder / backend), backend=backend, model_kwargs={"file_name": file}
    )
    model.max_seq_length = LONGEST

    def run(texts: Sequence[str]) -> Logits:
        vectors = model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)
        return material.head(np.asarray(vectors))

    return run


def exported(material: Material, backend: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    # a folder without its files gets the mean as pooling, which is what the model was trained with
    model = SentenceTransformer(
        str(material.backbone), backend=backend, model_kwargs={"export": True}, local_files_only=True
    )
    model.save_pretrained(str(material.folder / backend))
    return model


def sentences_onnx(material: Material) -> Callable[[Sequence[str]], Logits]:
    from sentence_transformers import export_dynamic_quantized_onnx_model

    model = exported(material, "onnx")
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(material.folder / "onnx"))
    return sentences(material, "onnx", "onnx/model_qint8_avx512_vnni.onnx")


def sentences_openvino(material: Material) -> Callable[[Sequence[str]], Logits]:
    """Its own export quantises with a data set from the Hub; the same with the calibration texts."""
    import datasets
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer

    model = exported(material, "openvino")
    rows = model.tokenizer(
        list(material.calibration), padding="max_length", max_length=LONGEST, truncation=True
    )
    given = datasets.Dataset.from_dict(dict(rows))
    OVQuantizer.from_pretrained(model[0].auto_model).quantize(
        given,
        save_directory=material.folder / "quantised",
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(given))),
    )
    # sentence-transformers saves into a folder of the backend's name
    for path in sorted((material.folder / "quantised" / "openvino").glob("openvino_model.*")):
        path.rename(material.folder / "openvino" / "openvino" / f"openvino_model_int8{path.suffix}")
    return sentences(material, "openvino", "openvino/openvino_model_int8.xml")


def optimum(material: Material) -> Callable[[Sequence[str]], Logits]:
    from onnxruntime import InferenceSession, SessionOptions
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    graph = material.plain
    ORTQuantizer.from_pretrained(graph.parent, file_name=graph.name).quantize(
        save_dir=material.folder / "optimum",
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False),
    )
    options = SessionOptions()
    options.intra_op_num_threads = material.threads
    options.log_severity_level = 3
    session = InferenceSession(material.folder / "optimum" / "fp32_quantized.onnx", options)
    names = [one.name for one in session.get_inputs()]

    def run(texts: Sequence[str]) -> Logits:
        feeds = material.feeds(texts, BATCH)
        return np.concatenate(
            [session.run(None, {name: one[name] for name in names})[0] for one in feeds]
        )

    return run


def openvino(material: Material) -> Callable[[Sequence[str]], Logits]:
    """Quantised by nncf as its documentation has it for transformers."""
    import nncf
    import openvino as ov

    core = ov.Core()
    quantised = nncf.quantize(
        core.read_model(material.plain),
        nncf.Dataset(material.feeds(material.calibration, 1)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(material.calibration),
    )
    compiled = core.compile_model(
        quantised,
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": material.threads},
    )
    request = compiled.create_infer_request()
    names = [one.get_any_name() for one in compiled.inputs]

    def run(texts: Sequence[str]) -> Logits:
        found = []
        for feed in material.feeds(texts, BATCH):
            answer = request.infer({name: feed[name] for name in names})
            found.append(np.array(answer[compiled.outputs[0]]))
        return np.concatenate(found)

    return run


def ctranslate2(material: Material) -> Callable[[Sequence[str]], Logits]:
    import ctranslate2 as ct2

    converted = material.folder / "ctranslate2"
    ct2.converters.TransformersConverter(str(material.backbone)).convert(
        str(converted), quantization="int8"
    )
    encoder = ct2.Encoder(
        str(converted), compute_type="int8", inter_threads=1, intra_threads=material.threads
    )

    def run(texts: Sequence[str]) -> Logits:
        found = []
        for feed in material.feeds(texts, BATCH):
            mask = feed["attention_mask"]
            ids = [
                row[:length].tolist()
                for row, length in zip(feed["input_ids"], mask.sum(axis=1), strict=True)
            ]
            states = np.array(encoder.forward_batch(ids).last_hidden_state)
            weights = mask[:, :, None].astype(np.float32)
            found.append(material.head((states * weights).sum(axis=1) / weights.sum(axis=1)))
        return np.concatenate(found)

    return run


def compared(
    runners: dict[str, Runner], validation: models.Examples, space: LabelSpace
) -> dict[str, dict[str, float]]:
    """How many rows each runner decides as PyTorch fp32 does, and its macro-F1 less that one's."""
    decided = {name: space.decide(one.scores(validation.texts)) for name, one in runners.items()}
    f1 = {name: metrics.macro_f1(validation.truth, one) for name, one in decided.items()}
    return {
        name: {
            "macro_f1_change": round(f1[name] - f1[FP32], 4),
            "agreement": round(float((one == decided[FP32]).all(axis=1).mean()), 4),
        }
        for name, one in decided.items()
    }


def mixed(count: int, tokens: Callable[[str], int]) -> list[str]:
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(np.log(24), 0.7, count)).round().clip(4, LONGEST).astype(int)
    pool = {length: latency.texts_of(length, 4, tokens) for length in set(drawn.tolist())}
    return [pool[length][row % 4] for row, length in enumerate(drawn.tolist())]


def throughput(runners: dict[str, Runner], texts: list[str], rounds: int) -> dict[str, float]:
    """Texts a second of each runner, the best of `rounds` in turns."""
    best = dict.fromkeys(runners, 0.0)
    for _ in range(rounds):
        for name, one in runners.items():
            own = texts if one.sorts else texts[: max(BATCH, len(texts) // 4 // BATCH * BATCH)]
            one.scores(own[:BATCH])
            time.sleep(latency.SETTLE)
            started = time.perf_counter()
            one.scores(own)
            best[name] = max(best[name], len(own) / (time.perf_counter() - started))
    return {name: round(rate, 1) for name, rate in best.items()}


def floor(module: Any, threads: int) -> dict[str, float]:
    """The least ms of a text of each length, see above."""
    layers = sum(
        one.weight.numel()
        for name, one in module.backbone.encoder.named_modules()
        if isinstance(one, torch.nn.Linear)
    )
    held = torch.zeros(layers // 8, dtype=torch.int64)
    reading = fastest(held.sum)
    rate = int8_rate(threads)
    return {str(length): round(1000 * max(2 * layers * length / rate, reading), 3) for length in LENGTHS}


def int8_rate(threads: int) -> float:
    """Operations a second of one large product of bytes."""
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession, SessionOptions

    rows, deep, wide = 1024, 1024, 4096
    weights = np.random.default_rng(0).integers(-127, 127, (deep, wide)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, deep])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [rows, wide])],
        [helper.make_tensor("b", TensorProto.INT8, [deep, wide], weights.tobytes(), raw=True)],
    )
    options = SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = InferenceSession(model.SerializeToString(), options)
    given = {"a": np.full((rows, deep), 3, dtype=np.uint8)}
    return 2 * rows * deep * wide / fastest(lambda: session.run(None, given))


def fastest(call: Callable[[], object]) -> float:
    """Seconds of the shortest of 30 calls."""
    taken = []
    for _ in range(30):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def show(results: list[dict[str, Any]], floors: dict[str, float], missing: dict[str, str]) -> None:
    """ms (x PyTorch fp32, / floor) at batch 1, texts/s (x PyTorch fp32), and what int8 costs."""
    reference = next(one for one in results if one["model"] == FP32)
    print(
        f"{'':31}"
        + "".join(f"{length + ' tok':>23}" for length in floors)
        + f"{'texts/s':>16}{'F1':>9}{'agree':>8}"
    )
    for one in results:
        cells = [
            f"{ms:9.2f} ({reference['ms'][length] / ms:4.1f}x, {ms / floors[length]:4.1f}f)"
            for length, ms in one["ms"].items()
        ]
        rate = one["texts_per_second"]
        print(
            f"{one['model']:31}"
            + "".join(f"{cell:>23}" for cell in cells)
            + f"{rate:8.0f} ({rate / reference['texts_per_second']:4.1f}x)"
            + f"{one['macro_f1_change']:+9.4f}{one['agreement']:8.3f}"
            + ("" if same(one) else "  not the same model")
        )
    print(f"{'floor':31}" + "".join(f"{ms:9.2f}{'':14}" for ms in floors.values()))
    for name, package in missing.items():
        print(f"{name:31}not measured: {package} is not installed")
    own = [one for one in results if one["model"].startswith(OWN)]
    peers = [one for one in results if not one["model"].startswith(OWN)]
    for who, of in (("fastest peer", peers), ("fastest that is the same", list(filter(same, peers)))):
        cells = [
            f"{min(one['ms'][length] for one in of) / min(one['ms'][length] for one in own):.2f}x"
            for length in floors
        ]
        rates = [max(one["texts_per_second"] for one in group) for group in (own, of)]
        print(
            f"{'against the ' + who:31}".ljust(38)
            + "".join(f"{cell:>23}" for cell in cells)
            + f"{rates[0] / rates[1]:15.2f}x"
        )


def same(one: dict[str, Any]) -> bool:
    """Whether it is still the same model, by macro-F1 and agreement on validation."""
    return abs(one["macro_f1_change"]) <= DROP and one["agreement"] >= AGREEMENT


if __name__ == "__main__":
    main()
