"""A robot with ROS 1 for the tests: takes lines of JSON, answers with lines of JSON.

    {"do": "publish", "topics": {TOPIC: PICTURE, ...}, "rate": 30, "count": 100}   {"published": 100} when done
    {"do": "record", "bag": FILE, "topics": {TOPIC: PICTURE, ...}, "rate": 30, "count": 100}   {"recorded": 100}
    {"do": "take_back", "topic": TOPIC}   {"taken_back": TOPIC}: what was published is so no more
    {"do": "listen", "topic": TOPIC, "type": "Twist" or "String"}   {"listening": TOPIC}, then what comes, as it comes

A PICTURE is {"encoding", "width", "height"} with "rubbish", "is_bigendian", or any field of the message to be set otherwise,
or {"file": FILE, "format": "jpeg"}. Where "cut" stands, so many bytes of the data are missing. A "count" of null is for ever.
"""
import json
import sys
import threading
import time

import rospy
from geometry_msgs.msg import Twist
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

import robot_pictures

PUBLISHERS = {}

def say(**words):
    print(json.dumps(words), flush=True)


def message(picture):
    if "file" in picture:
        with open(picture["file"], "rb") as file:
            return CompressedImage(format=picture["format"], data=file.read())
    fields = dict(picture)
    cut, rubbish = fields.pop("cut", 0), fields.pop("rubbish", 0)
    is_bigendian = fields.get("is_bigendian", False)
    encoding = fields.pop("as", fields["encoding"])
    data, step = robot_pictures.image(encoding, fields["width"], fields["height"], rubbish, is_bigendian)
    fields.update(fields.pop("claim", {}))
    return Image(**{"step": step, "data": data[:len(data) - cut], **fields})


def paced(rate, count):
    start, number = time.monotonic(), 0
    while (count is None or number < count) and not rospy.is_shutdown():
        yield number
        number += 1
        time.sleep(max(0, start + number / rate - time.monotonic()))


def publish(topics, rate, count):
    messages = {topic: message(picture) for topic, picture in topics.items()}
    publishers = {
        topic: rospy.Publisher(topic, type(it), queue_size=2, tcp_nodelay=True) for topic, it in messages.items()
    }
    PUBLISHERS.update(publishers)
    # What is published before somebody listens is lost.
    while count is not None and not all(it.get_num_connections() for it in publishers.values()):
        time.sleep(0.01)
    for _ in paced(rate, count):
        for topic, publisher in publishers.items():
            messages[topic].header.stamp = rospy.Time.from_sec(time.time())
            publisher.publish(messages[topic])
    say(published=count)


def take_back(topic):
    PUBLISHERS.pop(topic).unregister()
    say(taken_back=topic)


def record(bag, topics, rate, count):
    import rosbag

    with rosbag.Bag(bag, "w") as file:
        for number in range(count):
            stamp = rospy.Time.from_sec(1_700_000_000 + number / rate)
            for topic, picture in topics.items():
                it = message(picture)
                it.header.stamp = stamp
                file.write(topic, it, stamp)
    say(recorded=count)


def listen(topic, type):
    def heard(message):
        if type == "Twist":
            linear, angular = message.linear, message.angular
            say(twist=[linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], at=time.time())
        else:
            say(text=message.data, at=time.time())

    rospy.Subscriber(topic, {"Twist": Twist, "String": String}[type], heard, tcp_nodelay=True)
    say(listening=topic)


def main():
    rospy.init_node("robot", anonymous=True, disable_signals=True)
    say(node=rospy.get_name())
    for line in sys.stdin:
        words = json.loads(line)
        do = {"publish": publish, "take_back": take_back, "record": record, "listen": listen}[words.pop("do")]
        threading.Thread(target=do, kwargs=words, daemon=True).start()


main()
