"""ml_graphs.py - graphs of ai.onnx.ml for check_graphs.py: trees, linear models, support vectors, features.

Each function gives (model, inputs, None): the onnx package's reference evaluator knows all of these operators.
"""
import numpy as np
from onnx import TensorProto, helper

RANDOM = np.random.default_rng(11)
FEATURES = 5


def rows(count=9):
    return RANDOM.standard_normal((count, FEATURES)).astype(np.float32)


def whole(nodes, x, outputs):
    """OUTPUTS: name -> element type."""
    element = TensorProto.INT64 if x.dtype == np.int64 else TensorProto.FLOAT
    values = [helper.make_tensor_value_info("x", element, ["rows", x.shape[1]])]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(nodes, "main", values, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10), {"x": x}, None


def ml(name, outputs, **attributes):
    return helper.make_node(name, ["x"], list(outputs), domain="ai.onnx.ml", **attributes)


def trees(depths, targets, prefix, modes=("BRANCH_LEQ",)):
    """Full trees, and one that leans to one side: the attributes of a tree ensemble."""
    a = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    votes = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}

    def add(tree, depth, lean):
        node = sum(t == tree for t in a["treeids"])
        for key, value in {
            "treeids": tree, "nodeids": node, "featureids": int(RANDOM.integers(FEATURES)), "values": float(np.float32(RANDOM.standard_normal())),
            "modes": modes[node % len(modes)] if depth else "LEAF", "truenodeids": 0, "falsenodeids": 0, "missing_value_tracks_true": int(RANDOM.integers(2)),
        }.items():
            a[key].append(value)
        at = len(a["modes"]) - 1
        if depth:
            a["truenodeids"][at] = add(tree, 0 if lean else depth - 1, lean)
            a["falsenodeids"][at] = add(tree, depth - 1, lean)
            return node
        for target in range(targets):
            for key, value in {"treeids": tree, "nodeids": node, "ids": target, "weights": float(np.float32(RANDOM.standard_normal()))}.items():
                votes[key].append(value)
        return node

    for tree, depth in enumerate(depths):
        add(tree, abs(depth), depth < 0)
    return {**{f"nodes_{k}": v for k, v in a.items()}, **{f"{prefix}_{k}": v for k, v in votes.items()}}


def tree_regressors():
    """Several targets, trees of 0 to 20 levels, all comparisons, features that are missing."""
    x = rows()
    x[::3, ::2] = np.nan
    modes = [f"BRANCH_{m}" for m in ("LEQ", "LT", "GTE", "GT")]
    nodes = [
        ml("TreeEnsembleRegressor", ["sum"], n_targets=3, base_values=[0.5, -1.0, 2.0], **trees([3, 5, -20], 3, "target")),
        ml("TreeEnsembleRegressor", ["mixed"], n_targets=1, aggregate_function="AVERAGE", **trees([2, 4], 1, "target", modes)),
        ml("TreeEnsembleRegressor", ["least"], n_targets=2, aggregate_function="MIN", **trees([2, 1, 0], 2, "target")),
        ml("TreeEnsembleRegressor", ["most"], n_targets=1, aggregate_function="MAX", **trees([4, 3], 1, "target")),
    ]
    return whole(nodes, x, dict.fromkeys(("sum", "mixed", "least", "most"), TensorProto.FLOAT))


def tree_classifiers():
    """Three classes; two of which both have votes, and two with the votes of one."""
    outputs = {"label": TensorProto.INT64, "score": TensorProto.FLOAT, "label2": TensorProto.INT64, "score2": TensorProto.FLOAT}
    outputs |= {"label1": TensorProto.INT64, "score1": TensorProto.FLOAT}
    nodes = [
        ml("TreeEnsembleClassifier", ["label", "score"], classlabels_int64s=[7, 3, 9], post_transform="SOFTMAX", **trees([3, 2, 4], 3, "class")),
        ml("TreeEnsembleClassifier", ["label2", "score2"], classlabels_int64s=[4, 2], post_transform="NONE", **trees([3, 2], 2, "class")),
        ml("TreeEnsembleClassifier", ["label1", "score1"], classlabels_int64s=[4, 2], post_transform="LOGISTIC", **trees([3, 2], 1, "class")),
    ]
    return whole(nodes, rows(), outputs)


def linear_models():
    outputs = {"y": TensorProto.FLOAT, "label": TensorProto.INT64, "score": TensorProto.FLOAT}
    weights = RANDOM.standard_normal(3 * FEATURES).astype(np.float32).tolist()
    nodes = [
        ml("LinearRegressor", ["y"], targets=3, coefficients=weights, intercepts=[0.1, 0.2, 0.3]),
        ml(
            "LinearClassifier", ["label", "score"], coefficients=weights, intercepts=[1.0, 0.0, -1.0], classlabels_ints=[5, 6, 7],
            post_transform="SOFTMAX",
        ),
    ]
    return whole(nodes, rows(), outputs)


def support_vectors():
    outputs, nodes = {}, []
    vectors = RANDOM.standard_normal(6 * FEATURES).astype(np.float32).tolist()
    weights = RANDOM.standard_normal(12).astype(np.float32).tolist()
    for kind, params in {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.5, 1.0, 2.0], "RBF": [0.2, 0.0, 3.0], "SIGMOID": [0.3, 0.1, 3.0]}.items():
        outputs |= {kind: TensorProto.FLOAT, f"{kind}_label": TensorProto.INT64, f"{kind}_score": TensorProto.FLOAT}
        common = {"kernel_type": kind, "kernel_params": params, "support_vectors": vectors}
        nodes.append(ml("SVMRegressor", [kind], n_supports=6, coefficients=weights[:6], rho=[0.3], **common))
        nodes.append(
            ml(
                "SVMClassifier", [f"{kind}_label", f"{kind}_score"], coefficients=weights, rho=[0.3, -0.2, 0.1], vectors_per_class=[1, 3, 2],
                classlabels_ints=[3, 1, 2], **common,
            )
        )
    return whole(nodes, rows(), outputs)


def features():
    x = rows()
    x[::2, 1::2] = np.nan
    nodes = [ml("Imputer", ["filled"], imputed_value_floats=[1.0, 2.0, 3.0, 4.0, 5.0], replaced_value_float=float("nan"))]
    return whole(nodes, x, {"filled": TensorProto.FLOAT})


def categories():
    x = RANDOM.integers(0, 6, (7, 2))
    return whole([ml("OneHotEncoder", ["y"], cats_int64s=[4, 0, 2], zeros=1)], x, {"y": TensorProto.FLOAT})


GRAPHS = [tree_regressors, tree_classifiers, linear_models, support_vectors, features, categories]
