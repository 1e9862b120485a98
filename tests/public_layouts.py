"""Small folders in the layouts of public robot datasets, with numbers of our own, and what a right schema says of each.

``answer`` is ``right`` where no line is to be written and no question is due. It is ``rate`` where nothing in the files
states the rate, so that this one question is due, and all else is right. It is ``told`` where the refusal or the
question names what is to be written. ``rate|told``: either will do.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from container_writing import (
    jpeg,
    pictures,
    push_t,
    smooth,
    umi,
    write_aloha,
    write_calvin,
    write_libero,
    write_replay_buffer,
    write_robomimic,
)
from factories import make_jpeg
from lerobot_datasets import write_lerobot
from numpy.typing import NDArray
from PIL import Image
from videos import frames_of, make_video

__all__ = ["LAYOUTS", "Layout"]

ROWS = 40
START_S = 1_650_000_000.0


@dataclass(frozen=True)
class Layout:
    """A public dataset: who made it, a function that writes it small, and the facts as of a case of the corpus."""

    name: str
    write: Callable[[Path], object]
    answer: str
    facts: dict[str, Any] = field(default_factory=dict)


LAYOUTS: list[Layout] = []


def layout(answer: str, **facts: Any) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Add a function to the list of layouts."""

    def add(write: Callable[[Path], object]) -> Callable[[Path], object]:
        LAYOUTS.append(Layout(write.__name__, write, answer, facts))
        return write

    return add


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def walk(columns: int, rows: int = ROWS, seed: int = 0) -> NDArray[np.float64]:
    return smooth(rng(seed), rows, columns)


def lines(rows: Any, delimiter: str = ",", header: str = "", digits: int = 6) -> str:
    def cell(value: object) -> str:
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    return header + "".join(delimiter.join(map(cell, row)) + "\n" for row in rows)


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def png(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def quaternions(rows: int = ROWS, seed: int = 3) -> NDArray[np.float64]:
    parts = np.concatenate([walk(3, rows, seed), np.ones((rows, 1))], axis=1)
    return parts / np.linalg.norm(parts, axis=1, keepdims=True)


def hdf5(path: Path, arrays: dict[str, Any], attributes: dict[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes or {})


# Those that a built-in schema reads.


@layout("right|told", built_in="aloha")
def aloha(root: Path) -> None:
    for index in range(2):
        write_aloha(root / "transfer_cube", index=index)


@layout("right", built_in="aloha")
def aloha_of_a_simulation(root: Path) -> None:
    for index in range(2):
        write_aloha(root / "sim_insertion", index=index, real=False)


@layout("right", built_in="aloha")
def mobile_aloha(root: Path) -> None:
    for index in range(2):
        path = write_aloha(root / "wash_pan", index=index, compress=False)
        with h5py.File(path, "a") as file:
            file["base_action"] = walk(2, len(file["action"]), index)


@layout("right", built_in="robomimic")
def robomimic(root: Path) -> None:
    write_robomimic(root / "lift" / "ph" / "image.hdf5")


@layout("right", built_in="robomimic")
def mimicgen(root: Path) -> None:
    path = write_robomimic(root / "core" / "stack_d0.hdf5", images=False)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            rows = len(demo["actions"])
            demo["datagen_info/eef_pose"] = np.tile(np.eye(4), (rows, 1, 1))
            demo["datagen_info/gripper_action"] = np.sign(walk(1, rows))


@layout("right", built_in="libero")
def libero(root: Path) -> None:
    write_libero(root / "libero_spatial" / "pick_up_the_bowl_demo.hdf5", "pick up the bowl")


@layout("right", built_in="diffusion_policy")
def diffusion_policy_pusht(root: Path) -> None:
    write_replay_buffer(root / "pusht" / "pusht_cchi_v7_replay.zarr", *push_t())


@layout("right", built_in="umi")
def universal_manipulation_interface(root: Path) -> None:
    write_replay_buffer(root / "cup" / "replay_buffer.zarr", *umi())


@layout("right", built_in="calvin")
def calvin(root: Path) -> None:
    write_calvin(root / "training", [(0, 19), (20, 45)])


@layout("right", built_in="droid")
def droid_raw(root: Path) -> None:
    folder = root / "AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023"
    stamps = 1_688_748_000_000 + 66 * np.arange(ROWS)
    arrays = {"joint_positions": walk(7), "cartesian_position": walk(6), "gripper_position": walk(1)[:, 0]}
    hdf5(folder / "trajectory.h5", {f"observation/robot_state/{name}": values for name, values in arrays.items()})
    with h5py.File(folder / "trajectory.h5", "a") as file:
        file["observation/timestamp/control/step_start"], file["action/joint_position"] = stamps, walk(7)
    make_video(folder / "recordings/MP4/18026681.mp4", frames_of(ROWS), rate=60)
    write(folder / "metadata_AUTOLab+5d05c5aa.json", json.dumps({"wrist_cam_serial": "18026681"}))


@layout("right", built_in="bridge_raw")
def bridge_data_v2(root: Path) -> None:
    folder = root / "bridge_data_v2/datacol1_toykitchen1/many_skills/00/raw/traj_group0/traj0"
    write(folder / "obs_dict.pkl", pickle.dumps({"full_state": walk(7), "time_stamp": START_S + np.arange(ROWS) / 5}))
    write(folder / "policy_out.pkl", pickle.dumps([{"actions": row} for row in walk(7, ROWS - 1)]))
    for i in range(ROWS):
        write(folder / f"images0/im_{i}.jpg", make_jpeg(i))


@layout("right", built_in="lerobot")
def lerobot_v2(root: Path) -> None:
    write_lerobot(root / "so100_pick", version="v2.1")


@layout("right", built_in="lerobot")
def lerobot_v3(root: Path) -> None:
    write_lerobot(root / "so101_pick", version="v3.0")


# Arms, in containers.


@layout("rate", episodes=2, kept=["puppet/joint_position"], action_kind=["column"], action=["master/joint_position"])
def robomind(root: Path) -> None:
    for i in range(2):
        arrays: dict[str, Any] = {
            "puppet/joint_position": walk(7, seed=i),
            "master/joint_position": walk(7, seed=i + 5),
        }
        arrays["language_raw"] = np.array([b"put the bread on the plate"])
        path = root / f"h5_franka_1rgb/bread/success_episodes/train/{i}/data/trajectory.hdf5"
        hdf5(path, arrays)
        with h5py.File(path, "a") as file:
            shape, kind = (ROWS,), h5py.vlen_dtype(np.uint8)
            images = file.create_dataset("observations/rgb_images/camera_top", shape, dtype=kind)
            for k, pixels in enumerate(pictures(rng(i), ROWS)):
                images[k] = np.frombuffer(jpeg(pixels), np.uint8)


@layout(
    "right",
    num_rows=ROWS,
    rate_hz=5,
    episodes=3,
    kept=["data/qp_arm"],
    action_has=["data/ctrl_arm"],
    action_kind=["column"],
)
def roboset(root: Path) -> None:
    with h5py.File(_made(root / "set_17_pick_0.h5"), "w") as file:
        for i in range(3):
            data = file.create_group(f"Trial{i}/data")
            data["time"] = np.arange(ROWS) / 5
            data["ctrl_arm"], data["ctrl_ee"], data["qp_arm"], data["qp_ee"] = (
                walk(7),
                walk(1),
                walk(7, seed=i),
                walk(1),
            )
            data["qv_arm"], data["rgb_left"] = walk(7), pictures(rng(i), ROWS, 24, 32)


@layout("rate", episodes=3, kept=["actions"], action_kind=["column"], action=["actions"])
def maniskill(root: Path) -> None:
    with h5py.File(_made(root / "PickCube-v1/motionplanning/trajectory.h5"), "w") as file:
        for i in range(3):
            file[f"traj_{i}/actions"], file[f"traj_{i}/success"] = walk(8), np.zeros(ROWS, bool)
            file[f"traj_{i}/obs/agent/qpos"], file[f"traj_{i}/obs/agent/qvel"] = walk(9, ROWS + 1), walk(9, ROWS + 1)
            file[f"traj_{i}/obs/extra/tcp_pose"] = walk(7, ROWS + 1)
    told = {"env_info": {"env_id": "PickCube-v1", "env_kwargs": {"control_mode": "pd_joint_pos"}}}
    write(root / "PickCube-v1/motionplanning/trajectory.json", json.dumps(told))


@layout("rate", kept=["observations"], action_kind=["column"], action=["actions"])
def d4rl(root: Path) -> None:
    arrays = {"observations": walk(11), "actions": walk(3), "rewards": walk(1)[:, 0]}
    ends = {"terminals": np.zeros(ROWS, bool), "timeouts": np.arange(ROWS) % 20 == 19}
    hdf5(root / "hopper_medium-v2.hdf5", {**arrays, **ends})


@layout("rate|told", episodes=2, action_not=["states"], asks=["action"])
def roboturk(root: Path) -> None:
    with h5py.File(_made(root / "SawyerPickPlace/demo.hdf5"), "w") as file:
        for i in range(2):
            group = file.create_group(f"data/demo_{i + 1}")
            group["states"], group["joint_velocities"], group["gripper_actuations"] = walk(46), walk(7), walk(1)
            group["left_dpos"], group["right_dpos"], group["right_dquat"] = walk(3), walk(3), quaternions()
            group.attrs["model_file"] = "demo.xml"
        file["data"].attrs["env"] = "SawyerPickPlace"


@layout("rate", action_kind=["column"], action=["policy/actions"], kept=["env/state"])
def robonet(root: Path) -> None:
    for i in range(2):
        arrays = {"env/state": walk(5, seed=i), "policy/actions": walk(4, ROWS - 1, seed=i)}
        arrays["env/cam0_video/frames"] = pictures(rng(i), ROWS, 24, 32)
        hdf5(root / f"hdf5/sawyer_traj{i}.hdf5", arrays, {"robot": "sawyer", "camera_configuration": "google"})


@layout("right", num_rows=ROWS, rate_hz=30, start_s=START_S, episodes=2, camera_rows=[ROWS, ROWS])
def agibot_world(root: Path) -> None:
    for i in range(2):
        folder = root / f"task_327/{648642 + i}"
        arrays: dict[str, Any] = {"timestamp": 1_650_000_000_000_000_000 + 33_333_333 * np.arange(ROWS)}
        arrays["state/joint/position"], arrays["action/joint/position"] = walk(14, seed=i), walk(14, seed=i)
        arrays["state/effector/position"], arrays["action/effector/position"] = walk(2), walk(2)
        arrays["state/head/position"], arrays["action/head/position"] = walk(2), walk(2)
        hdf5(folder / "proprio_stats.h5", arrays)
        for camera in ("head_color", "hand_left_color"):
            make_video(folder / f"videos/{camera}.mp4", frames_of(ROWS), rate=30)


@layout("rate", episodes=2, action_kind=["column"], action=["action"], kept=["robot_state"])
def berkeley_autolab_ur5(root: Path) -> None:
    for i in range(2):
        arrays = {"robot_state": walk(15, seed=i), "action": walk(7, seed=i), "image": pictures(rng(i), ROWS, 24, 32)}
        np.savez(_made(root / f"train/episode_{i}.npz"), **arrays, language_instruction="pick up the tiger")


@layout("rate", episodes=2, action_kind=["column"], action=["action"], state_has=["effector_translation"])
def language_table(root: Path) -> None:
    for i in range(2):
        arrays = {"effector_translation": walk(2, seed=i), "effector_target_translation": walk(2, seed=i)}
        arrays |= {"action": walk(2), "rgb": pictures(rng(i), ROWS, 24, 32), "reward": np.zeros(ROWS)}
        np.savez(_made(root / f"language_table_{i:04d}.npz"), **arrays)


@layout("rate", episodes=2, kept=["obs/tcp_pose", "obs/q"], action_kind=["column"], action=["action"])
def fmb(root: Path) -> None:
    for i in range(2):
        arrays = {"obs/tcp_pose": walk(7, seed=i), "obs/q": walk(7), "obs/tcp_force": walk(3), "action": walk(7)}
        arrays["obs/side_1"] = pictures(rng(i), ROWS, 24, 32)
        np.savez(_made(root / f"single_object/traj_{i}.npz"), **arrays)


@layout("right", num_rows=ROWS, rate_hz=10, kept=["tcp", "joints"], start_s=START_S)
def rh20t(root: Path) -> None:
    folder = root / "task_0001_user_0016_scene_0001_cfg_0003"
    stamps = (START_S + np.arange(ROWS) / 10) * 1000
    for name, values in {
        "timestamps": stamps.astype(np.int64),
        "tcp": walk(7),
        "joints": walk(6),
        "force": walk(6),
    }.items():
        np.save(_made(folder / f"{name}.npy"), values)
    for stamp in stamps.astype(np.int64):
        write(folder / f"cam_750612070851/color/{stamp}.jpg", make_jpeg(int(stamp) % 1000))


@layout("rate|told", asks=["pickle"], action=["actions"], action_kind=["column"])
def furniture_bench(root: Path) -> None:
    for i in range(2):
        steps = [{"robot_state": {"ee_pos": row}, "color_image2": np.zeros((8, 8, 3), np.uint8)} for row in walk(3)]
        data = {"observations": steps, "actions": list(walk(8)), "rewards": [0.0] * ROWS, "furniture": "one_leg"}
        write(root / f"one_leg/low/{i:05d}/2023.pkl", pickle.dumps(data))


@layout("rate|told", asks=["pickle", ".pkl"], camera_rows=[ROWS], num_rows=ROWS)
def rlbench(root: Path) -> None:
    folder = root / "open_drawer/variation0/episodes/episode0"
    write(folder / "low_dim_obs.pkl", pickle.dumps([{"joint_positions": row} for row in walk(7)]))
    for i in range(ROWS):
        png(folder / f"front_rgb/{i}.png", pictures(rng(i), 1, 16, 16)[0])


@layout("told")
def open_x_embodiment(root: Path) -> None:
    write(root / "fractal20220817_data/0.1.0/fractal-train.tfrecord-00000-of-01024", rng().bytes(4000))
    write(root / "fractal20220817_data/0.1.0/features.json", json.dumps({"featuresDict": {}}))


@layout("told")
def bc_z(root: Path) -> None:
    write(root / "bc-z-robot/train-00000-of-01000", rng().bytes(4000))


@layout("told")
def relay_kitchen(root: Path) -> None:
    for name, shape in (
        ("observations_seq", (ROWS, 6, 60)),
        ("actions_seq", (ROWS, 6, 9)),
        ("existence_mask", (ROWS, 6)),
    ):
        np.save(_made(root / f"kitchen/{name}.npy"), smooth(rng(), *shape))


# Arms, in text and Parquet.


@layout("right", num_rows=ROWS, rate_hz=20, camera_rows=[ROWS], start_s=START_S)
def ario(root: Path) -> None:
    for i in range(2):
        folder = root / f"series-1/task-1/episode-{i + 1}"
        stamps = START_S + np.arange(ROWS) / 20 + 100 * i
        joints = [[float(t), *map(float, row)] for t, row in zip(stamps, walk(7, seed=i), strict=True)]
        write(folder / "left_arm_joint.txt", lines(joints, " "))
        for stamp in stamps:
            write(folder / f"cam-1/{stamp:.6f}.jpg", make_jpeg(int(stamp * 20) % 50))


@layout("right", num_rows=ROWS, rate_hz=15, kept=["arm_lift", "wrist_roll"], episodes=2)
def stretch(root: Path) -> None:
    header = "timestamp,base_x,base_y,base_theta,arm_lift,arm_extension,wrist_yaw,wrist_pitch,wrist_roll,gripper\n"
    for i in range(2):
        rows = [[START_S + k / 15, *map(float, row)] for k, row in enumerate(walk(9, seed=i))]
        write(root / f"run_{i}/stretch_state.csv", lines(rows, header=header))
        make_video(root / f"run_{i}/head.mp4", frames_of(ROWS), rate=15)


@layout("right", num_rows=ROWS, rate_hz=30, episodes=2, action_kind=["column"], action=["action"])
def columns_of_lists_in_parquet(root: Path) -> None:
    for i in range(2):
        table = {
            "timestamp": np.arange(ROWS) / 30,
            "observation.state": walk(6, seed=i).tolist(),
            "action": walk(6).tolist(),
        }
        pq.write_table(pa.table(table), _made(root / f"episode_{i:06d}.parquet"))


@layout("right", num_rows=ROWS, rate_hz=250, episodes=2, kept=["tip_x", "force_z"])
def mit_push(root: Path) -> None:
    header = "time,tip_x,tip_y,tip_theta,object_x,object_y,object_theta,force_x,force_y,force_z\n"
    for i in range(2):
        rows = [[k / 250, *map(float, row)] for k, row in enumerate(walk(9, seed=i))]
        write(root / f"abs/rect1/motion_surface=abs_shape=rect1_a=0_v={20 + i}.csv", lines(rows, header=header))


@layout("right", num_rows=ROWS, rate_hz=30, camera_rows=[ROWS])
def ycb_slide(root: Path) -> None:
    rows = [
        [START_S + i / 30, *map(float, row), *map(float, q)]
        for i, (row, q) in enumerate(zip(walk(3), quaternions(), strict=True))
    ]
    write(root / "004_sugar_box/dataset_0/sensor_pose.csv", lines(rows, header="timestamp,x,y,z,qx,qy,qz,qw\n"))
    for i in range(ROWS):
        write(root / f"004_sugar_box/dataset_0/frames/frame_{i:07d}.jpg", make_jpeg(i))


@layout("rate", num_rows=ROWS, num_columns=76)
def jigsaws(root: Path) -> None:
    for i in range(2):
        text = "".join("  ".join(f"{value: .6f}" for value in row) + " \n" for row in walk(76, seed=i))
        write(root / f"Suturing/kinematics/AllGestures/Suturing_B{i + 1:03d}.txt", text)


@layout("rate", num_rows=ROWS, num_columns=62)
def cmu_mocap(root: Path) -> None:
    header = ",".join(f"{bone}_{axis}" for bone in [f"bone{k}" for k in range(20)] + ["root"] for axis in "xyz")[:-7]
    names = header.split(",")
    rows = [[*map(float, row)] for row in walk(len(names))]
    write(root / "subject_01/01_01.csv", lines(rows, header=header + "\n"))


@layout("right", num_rows=ROWS, rate_hz=100, start_s=START_S, kept=["steering", "vel"])
def nuscenes_can_as_csv(root: Path) -> None:
    rows = [[1_650_000_000_000_000 + 10_000 * i, *map(float, row)] for i, row in enumerate(walk(3))]
    write(root / "scene-0061_vehicle_monitor.csv", lines(rows, header="utime,steering,throttle,vel\n"))


# Cameras and vehicles.


@layout("right", num_rows=ROWS, rate_hz=100, camera_rows=[20], start_s=START_S)
def tum_rgbd_of_colour(root: Path) -> None:
    folder = root / "rgbd_dataset_freiburg1_xyz"
    poses = [
        [START_S + i / 100, *map(float, a), *map(float, q)]
        for i, (a, q) in enumerate(zip(walk(3), quaternions(), strict=True))
    ]
    write(
        folder / "groundtruth.txt",
        lines(poses, " ", "# ground truth trajectory\n# timestamp tx ty tz qx qy qz qw\n", 4),
    )
    for i in range(20):
        png(folder / f"rgb/{START_S + i / 30:.6f}.png", pictures(rng(i), 1, 16, 16)[0])


@layout("right|told", rate_hz=200, camera_rows=[20, 20], asks=["only speeds, forces or signals"])
def euroc(root: Path) -> None:
    stamps = 1_403_636_579_758_555_392 + 5_000_000 * np.arange(ROWS)
    imu = [[int(t), *map(float, row)] for t, row in zip(stamps, walk(6), strict=True)]
    units = ",".join([f"w_RS_S_{axis} [rad s^-1]" for axis in "xyz"] + [f"a_RS_S_{axis} [m s^-2]" for axis in "xyz"])
    write(root / "MH_01_easy/mav0/imu0/data.csv", lines(imu, header=f"#timestamp [ns],{units}\n"))
    for camera in ("cam0", "cam1"):
        times = stamps[::2]
        write(
            root / f"MH_01_easy/mav0/{camera}/data.csv",
            lines([[int(t), f"{t}.png"] for t in times], header="#timestamp [ns],filename\n"),
        )
        for i, stamp in enumerate(times):
            png(root / f"MH_01_easy/mav0/{camera}/data/{stamp}.png", pictures(rng(i), 1, 16, 16)[0])


@layout("right", num_rows=ROWS, rate_hz=10, camera_rows=[ROWS], num_columns=12)
def kitti_odometry(root: Path) -> None:
    folder = root / "sequences/00"
    write(folder / "times.txt", "".join(f"{i / 10:e}\n" for i in range(ROWS)))
    write(folder / "poses.txt", "".join(" ".join(f"{value:e}" for value in row) + "\n" for row in walk(12)))
    for i in range(ROWS):
        png(folder / f"image_2/{i:06d}.png", pictures(rng(i), 1, 16, 16)[0])


@layout("told", asks=["one_row_a_file"])
def scannet(root: Path) -> None:
    for i in range(ROWS):
        matrix = np.eye(4)
        matrix[:3, 3] = walk(3)[i]
        write(root / f"scene0000_00/pose/{i}.txt", lines(matrix.tolist(), " "))
        write(root / f"scene0000_00/color/{i}.jpg", make_jpeg(i))


@layout("right", num_rows=ROWS, rate_hz=20, kept=["value"])
def comma2k19(root: Path) -> None:
    folder = root / "Chunk_1/b0c9d2329ad1606b|2018-07-27--06-03-57/3/processed_log/CAN/steering_angle"
    for name, values in {"t": 1000 + np.arange(ROWS) / 20, "value": walk(1)[:, 0]}.items():
        with _made(folder / name).open("wb") as file:
            np.save(file, values)


@layout("right", num_rows=ROWS, camera_rows=[ROWS] * 3, built_in="robond")
def udacity_simulator(root: Path) -> None:
    rows = []
    for i, row in enumerate(np.abs(walk(2))):
        second, milli = divmod(100 * i, 1000)
        stamp = f"2019_04_02_19_25_{30 + second:02d}_{milli:03d}"
        names = [f"IMG/{camera}_{stamp}.jpg" for camera in ("center", "left", "right")]
        rows.append([*names, float(row[0]), float(row[1]), 0, 15.0])
        for name in names:
            write(root / "run1" / name, make_jpeg(i))
    write(root / "run1/driving_log.csv", lines(rows, header="center,left,right,steering,throttle,brake,speed\n"))


@layout("right", num_rows=ROWS, camera_rows=[ROWS], paired=True, action_kind=["column"], rate_hz=20)
def donkeycar(root: Path) -> None:
    steps = []
    for i, (angle, throttle) in enumerate(walk(2).tolist()):
        image = f"{i}_cam_image_array_.jpg"
        step = {"_index": i, "_timestamp_ms": 1_650_000_000_000 + 50 * i, "cam/image_array": image}
        steps.append({**step, "user/angle": angle, "user/mode": "user", "user/throttle": throttle})
        write(root / f"tub_1/images/{image}", make_jpeg(i))
    write(root / "tub_1/catalog_0.catalog", "".join(json.dumps(step) + "\n" for step in steps))


@layout("right", num_rows=ROWS, rate_hz=50, start_s=START_S)
def oxford_robotcar(root: Path) -> None:
    header = "timestamp,ins_status,latitude,longitude,altitude,northing,easting,down,roll,pitch,yaw\n"
    rows = [
        [1_650_000_000_000_000 + 20_000 * i, "INS_SOLUTION_GOOD", *map(float, row)] for i, row in enumerate(walk(9))
    ]
    write(root / "2014-05-06-12-54-54/gps/ins.csv", lines(rows, header=header))


@layout("right|told", num_rows=ROWS, rate_hz=500, asks=["only speeds, forces or signals"])
def uzh_fpv(root: Path) -> None:
    imu = [[i, START_S + i / 500, *map(float, row)] for i, row in enumerate(walk(6))]
    write(
        root / "indoor_forward_3/imu.txt",
        lines(imu, " ", "# id timestamp ang_vel_x ang_vel_y ang_vel_z lin_acc_x lin_acc_y lin_acc_z\n"),
    )


@layout("right", num_rows=ROWS, rate_hz=100, start_s=START_S, num_columns=9)
def nclt(root: Path) -> None:
    rows = [[1_650_000_000_000_000 + 10_000 * i, *map(float, row)] for i, row in enumerate(walk(9))]
    write(root / "2012-01-08/ms25.csv", lines(rows))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


warnings.filterwarnings("ignore", message="Numcodecs codecs are not")
