# An image of a node with its whole environment: see README.md.
packer {
  required_plugins {
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "1.2.0"
    }
  }
}

variable "kind" {
  type        = string
  description = "cpu or gpu"
}

variable "base" {
  type        = string
  description = "Name of the image to start from."
}

variable "project" {
  type = string
}

source "googlecompute" "node" {
  image_name              = "ampere-${var.kind}-${formatdate("YYYYMMDD-hhmm", timestamp())}"
  source_image            = var.base
  source_image_project_id = ["ubuntu-os-cloud", "deeplearning-platform-release"]
  project_id              = var.project
  zone                    = "us-central1-a"
  network                 = "ampere"
  subnetwork              = "ampere"
  ssh_username            = "ubuntu"
  machine_type            = var.kind == "gpu" ? "g2-standard-8" : "n2-standard-8"
  on_host_maintenance     = "TERMINATE"
  disk_size               = 100
}

build {
  sources = ["source.googlecompute.node"]

  provisioner "file" {
    source      = "build/ampere.tar.gz"
    destination = "/tmp/ampere.tar.gz"
  }

  provisioner "shell" {
    inline = [
      "mkdir -p ~/ampere && tar -xzf /tmp/ampere.tar.gz -C ~/ampere",
      "sh ~/ampere/deploy/node.sh ${var.kind}",
    ]
  }
}
