"""These modules ask what 16 bits save, and whether weights of 16 bits train as well as float32."""
