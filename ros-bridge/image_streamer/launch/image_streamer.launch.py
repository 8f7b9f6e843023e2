"""Shows a topic of ROS 2 on an Image Streamer (docs/ROS.md):

    ros2 launch image_streamer.launch.py image_topic:=/image_raw server:=https://example.org options:="--max-fps 10"

image-streamer-ros must be in the PATH. An API key comes from the variable SERVER_KEY.
"""
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "image_topic": "/image_raw",
    "session": "{topic}",  # The topic's name with dots for slashes.
    "server": "http://localhost:3000",
    "options": "",  # Whatever else `image-streamer-ros ros2 --help` lists.
}


def generate_launch_description():
    topic, session, server, options = map(LaunchConfiguration, ARGUMENTS)
    # Through a shell, which takes the options apart.
    command = ["image-streamer-ros ros2 --topic '", topic, "=", session, "' --server '", server, "' ", options]
    bridge = ExecuteProcess(cmd=[["exec ", *command]], shell=True, output="screen", respawn=True, respawn_delay=2.0)
    declared = [DeclareLaunchArgument(name, default_value=value) for name, value in ARGUMENTS.items()]
    return LaunchDescription([*declared, bridge])
