"""What a folder of tracings holds besides VolumeTracings.csv."""

FILE, UNIT = "volumes.csv", "VolumeUnit"  # a row a video; its column with the unit of ESV and EDV
NONE = "none.json"  # in a folder without model or tracings: the reason
