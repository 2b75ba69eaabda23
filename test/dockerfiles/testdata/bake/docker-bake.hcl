variable "IMAGE" {}

group "default" {
  targets = ["matrix", "extra"]
}

function "upper_tag" {
  params = [name]
  result = "${upper(name)}"
}

target "_common" {
  context = "context"
  args    = { VERSION = "1.0" }
  labels  = { "made.by" = "bake" }
}

target "matrix" {
  name     = "matrix-${flavour}-${replace(version, ".", "-")}"
  matrix   = { flavour = ["sweet", "sour"], version = ["1.0", "2.0"] }
  inherits = ["_common"]
  target   = "plain"
  args     = { FLAVOUR = upper_tag(flavour), VERSION = version }
  tags     = ["${IMAGE}-of-${flavour}:${version}"]
}

target "extra" {
  inherits = ["_common"]
  target   = "extra"
  contexts = { assets = "target:assets" }
  tags     = ["${IMAGE}:latest"]
}

target "assets" {
  context           = "assets"
  dockerfile-inline = <<EOT
FROM scratch
COPY file /
EOT
}
