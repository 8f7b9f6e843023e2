// wall
