"""A run of light configurations on a cluster, in a process of its own that a test kills.

It starts when stdin ends: JSON of a cluster's `address`, the `directory` of results and log, and the `specs`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import ray
from light_actor import light

from bench.run.nodes import Nodes
from bench.run.ray import Ray
from bench.run.suite_run import SuiteRun
from bench.spec.run_spec import RunSpec

if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    ray.init(asked["address"], log_to_driver=False, logging_level=logging.ERROR)
    directory, specs = Path(asked["directory"]), [RunSpec.model_validate(one) for one in asked["specs"]]
    placement = Ray(Nodes(None), worker=light(directory, pause=0.3), workers=2)
    SuiteRun.of(specs, directory / "results", placement=placement).run()
