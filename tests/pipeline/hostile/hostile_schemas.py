"""The schemas by which hostile files are ingested: one for each kind of file, each as short as can be."""

from __future__ import annotations

__all__ = ["SCHEMAS"]

_HEAD = 'schema_version = 1\nname = "hostile"\nanchor = "robot"\n'
_TAIL = """
[action]
kind = "next"
of = ["robot/q"]
"""


def _arrays(kind: str, files: str, *, episodes: str = "per_file = true", more: str = "", array: str = "q") -> str:
    return f"""{_HEAD}
[episodes]
{episodes}
[streams.robot]
kind = "{kind}"
files = ["{files}"]
rate_hz = 10
time = {{ array = "t" }}
{more}
[streams.robot.fields]
q = {{ array = "{array}", shape = [3] }}
{_TAIL}"""


def _camera(stream: str) -> str:
    return f"[streams.camera]\n{stream}\n"


def _bag(files: str) -> str:
    return f"""{_HEAD}
[episodes]
per_file = true
[streams.robot]
kind = "bag"
files = ["{files}"]
topic = "/joint_states"
time = {{ array = "header.stamp" }}
[streams.robot.fields]
q = {{ array = "position", shape = [3] }}
{_TAIL}"""


_CSV = f"""{_HEAD}
[episodes]
folders = ["episode_*"]
[streams.robot]
kind = "csv"
files = ["robot.csv", "robot.zip", "robot.csv.gz"]
time = {{ column = "t" }}
[streams.robot.fields]
q = {{ columns = ["a", "b", "c"] }}
{_TAIL}"""

SCHEMAS = {
    "hdf5": _arrays("hdf5", "*.h5"),
    "hdf5 camera": _arrays("hdf5", "*.h5")
    + _camera('kind = "images"\nfiles = ["{stem}.h5"]\narray = "img"\ntime = { rows_of = "robot" }'),
    "hdf5 groups": _arrays("hdf5", "*.h5", episodes='per_file = true\ngroup = "data/*"'),
    "hdf5 ends": _arrays("hdf5", "*.h5", episodes='per_file = true\nends = "ends"'),
    "npz": _arrays("npz", "*.npz"),
    "npz camera": _arrays("npz", "*.npz")
    + _camera('kind = "images"\nfiles = ["{stem}.npz"]\narray = "img"\ntime = { rows_of = "robot" }'),
    "npy": _arrays("npz", "*.npy", episodes='folders = ["episode_*"]'),
    "npz pickle": _arrays("npz", "*.pkl"),
    "npz rows": _arrays("npz", "step_*.npz", episodes='ranges = "ends.npy"', more="one_row_a_file = true"),
    "zarr": _arrays("zarr", "*.zarr"),
    "zarr zip": _arrays("zarr", "*.zarr.zip"),
    "zarr ends": _arrays("zarr", "*.zarr", episodes='per_file = true\nends = "ends"'),
    "parquet": _arrays("parquet", "*.parquet"),
    "parquet struct": _arrays("parquet", "*.parquet", array="s.q"),
    "parquet camera": _arrays("parquet", "*.parquet")
    + _camera('kind = "images"\nfiles = ["{stem}.parquet"]\narray = "img"\ntime = { rows_of = "robot" }'),
    "ros1": _bag("*.bag"),
    "db3": _bag("*/*.db3"),
    "db3 zstd": _bag("*.db3.zstd"),
    "mcap": _bag("*.mcap"),
    "csv": _CSV,
    "csv stamps": _CSV + _camera('kind = "images"\nfiles = ["cam/*.jpg"]\ntime = { file = "times.txt" }'),
    "json rows": _CSV.replace(
        'files = ["robot.csv", "robot.zip", "robot.csv.gz"]', 'files = ["rows/*.json"]\none_row_a_file = true'
    ),
    "images": _CSV + _camera('kind = "images"\nfiles = ["cam/*"]\ntime = { rate_hz = 10 }'),
    "images convert": _CSV + _camera('kind = "images"\nfiles = ["cam/*"]\nconvert = "png"\ntime = { rate_hz = 10 }'),
    "depth": _CSV + _camera('kind = "images"\nfiles = ["cam/*"]\nunit = "mm"\ntime = { rate_hz = 10 }'),
    "depth convert": _CSV
    + _camera('kind = "images"\nfiles = ["cam/*"]\nunit = "mm"\nconvert = "png"\ntime = { rate_hz = 10 }'),
    "cameras": _CSV + _camera('kind = "images"\nfiles = ["images/{camera}/*.jpg"]\ntime = { rate_hz = 10 }'),
    "video": _CSV + _camera('kind = "video"\nfiles = ["cam.*"]\ntime = {}'),
    "video drop": _CSV + _camera('kind = "video"\nfiles = ["cam.*"]\non_bad = "drop"\ntime = {}'),
}
SCHEMAS["hdf5 deep"] = SCHEMAS["hdf5"].replace('array = "q"', 'array = "d/q"')
