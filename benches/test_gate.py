"""Tests of the gate's own functions. `python3 -m unittest discover --start-directory benches`; `.ci/run` does so."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import tomllib
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
loader = importlib.machinery.SourceFileLoader("gate", str(HERE / "gate"))
gate = importlib.util.module_from_spec(importlib.util.spec_from_loader("gate", loader))
loader.exec_module(gate)

LIMITS = {"first": {"instructions": 100_000, "allocations": 50.0, "syscalls": 12.0}}


def held(**counts):
    return [ok for _, ok in gate.compare(LIMITS, {"first": {**LIMITS["first"], **counts}})]


class Comparison(unittest.TestCase):
    def test_what_the_table_says_is_held_and_so_are_three_percent_of_it(self):
        self.assertEqual(held(), [True, True, True])
        self.assertEqual(held(instructions=102_900, allocations=48.6), [True, True, True])

    def test_each_figure_that_is_dearer_by_more_than_three_percent_fails(self):
        self.assertEqual(held(instructions=103_100), [False, True, True])
        # Among fifty allocations, one more is 2 % and two more are 4 %. One more system call always fails.
        self.assertEqual(held(allocations=52.0, syscalls=13.0), [True, False, False])

    def test_what_became_cheaper_is_told_so_that_the_limit_is_lowered(self):
        lines = gate.compare(LIMITS, {"first": {**LIMITS["first"], "instructions": 96_000}})
        self.assertIn("lower the limit", lines[0][0])
        self.assertTrue(lines[0][1])

    def test_a_figure_without_a_limit_fails(self):
        self.assertEqual(gate.compare({}, {"pass": {"instructions": 1}})[0][1], False)

    def test_what_is_written_is_read_back_and_held(self):
        measured = {"pass": {"instructions": 45_678.9, "allocations": 10.12, "syscalls": 6.02}}
        limits = tomllib.loads(gate.limits_toml(measured))
        self.assertEqual([ok for _, ok in gate.compare(limits, measured)], [True, True, True])
        self.assertIn("rustc", limits["measured"])


class Reading(unittest.TestCase):
    def test_a_profile_has_calls_of_the_allocator_by_others_and_none_of_its_own(self):
        profile = """fn=(1) onlyonce::proxy::handle
+3 7
cfn=(2) malloc
calls=5 0
* 100
cfn=(3) realloc
calls=2 0
* 40
cfn=(4) free
calls=9 0
* 9
fn=(3)
+1 10
cfn=(2)
calls=4 0
* 80
fn=(5) mi_malloc_aligned
cfn=(6) mi_heap_malloc
calls=3 0
* 3
totals: 1234
"""
        with tempfile.NamedTemporaryFile("w", suffix=".callgrind") as file:
            file.write(profile)
            file.flush()
            self.assertEqual(gate.read_profile(file.name), (1234, 7))

    def test_a_table_of_strace_is_summed_with_and_without_errors(self):
        table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 55.09    0.435926         206      2107         1 futex
 22.68    0.179478          44      2801           writev
------ ----------- ----------- --------- --------- ----------------
100.00    0.791256          56      4908         1 total
"""
        self.assertEqual(gate.read_strace(table), 4908)


if __name__ == "__main__":
    unittest.main()
