"""A robot with ROS 2 for the tests: the same as ros1_robot.py, over CycloneDDS with the names and types of ROS 2.

    {"do": "publish", "topics": ..., "rate": 30, "count": 100, "reliable": true}
    {"do": "listen", "topic": TOPIC, "type": "Twist" or "String", "reliable": true}
"""
import json
import struct
import sys
import threading
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import float64, int32, sequence, uint8, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

import robot_pictures


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    header: Header
    format: str
    data: sequence[uint8]


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Twist(IdlStruct, typename="geometry_msgs::msg::dds_::Twist_"):
    linear: Vector3
    angular: Vector3


@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str


def say(**words):
    print(json.dumps(words), flush=True)


def message(picture):
    header = Header(Time(0, 0), "camera")
    if "file" in picture:
        with open(picture["file"], "rb") as file:
            return CompressedImage(header, picture["format"], file.read())
    fields = dict(picture)
    cut, is_bigendian = fields.pop("cut", 0), fields.get("is_bigendian", False)
    data, step = robot_pictures.image(
        fields["encoding"], fields["width"], fields["height"], fields.pop("rubbish", 0), is_bigendian)
    fields.update(fields.pop("claim", {}))
    fields["is_bigendian"] = int(is_bigendian)
    return Image(**{"header": header, "step": step, "data": data[:len(data) - cut], **fields})


def quality(reliable, depth):
    reliability = Policy.Reliability.Reliable(duration(milliseconds=100)) if reliable else Policy.Reliability.BestEffort
    return Qos(reliability, Policy.History.KeepLast(depth), Policy.Durability.Volatile)


def stamped(message):
    """Writing a picture takes this library 45 ms, of which all but the stamp can be done once."""
    written = bytearray(message.serialize(use_version_2=False))
    written.extend(b"\0" * (-len(written) % 4))

    def serialize(use_version_2=None, **_):
        now = time.time()
        struct.pack_into("<iI", written, 4, int(now), int(now % 1 * 1e9))
        return bytes(written)

    object.__setattr__(message, "serialize", serialize)
    return message


def publish(participant, topics, rate, count, reliable=True):
    writers = {}
    for name, picture in topics.items():
        it = message(picture)
        topic = Topic(participant, "rt" + name, type(it))
        writers[name] = DataWriter(participant, topic, qos=quality(reliable, 2)), stamped(it)
    # What is published before somebody listens is lost.
    while count is not None and not all(writer.get_matched_subscriptions() for writer, _ in writers.values()):
        time.sleep(0.01)
    start, number = time.monotonic(), 0
    while count is None or number < count:
        for writer, it in writers.values():
            writer.write(it)
        number += 1
        time.sleep(max(0, start + number / rate - time.monotonic()))
    say(published=count)
    # A reliable writer is there for what it sent.
    time.sleep(3600)


def listen(participant, topic, type, reliable=True):
    reader = DataReader(
        participant, Topic(participant, "rt" + topic, {"Twist": Twist, "String": String}[type]), qos=quality(reliable, 100))
    say(listening=topic)
    while True:
        for it in reader.take(N=100):
            if isinstance(it, Twist):
                linear, angular = it.linear, it.angular
                say(twist=[linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], at=time.time())
            elif isinstance(it, String):
                say(text=it.data, at=time.time())
        time.sleep(0.002)


def main():
    participant = DomainParticipant(int(sys.argv[1]))
    say(domain=int(sys.argv[1]))
    for line in sys.stdin:
        words = json.loads(line)
        do = {"publish": publish, "listen": listen}[words.pop("do")]
        threading.Thread(target=do, args=(participant,), kwargs=words, daemon=True).start()


main()
