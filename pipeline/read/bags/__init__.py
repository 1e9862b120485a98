"""Reads the messages of ROS 1 bags, ROS 2 bags and MCAP files: containers of records, and the messages in them."""
