# An image of a node with its whole environment: see README.md.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "1.3.9"
    }
  }
}

variable "kind" {
  type        = string
  description = "cpu or gpu"
}

variable "base" {
  type        = string
  description = "Id of the image to start from."
}

variable "region" {
  type = string
}

source "amazon-ebs" "node" {
  ami_name      = "ampere-${var.kind}-${formatdate("YYYYMMDD-hhmm", timestamp())}"
  source_ami    = var.base
  region        = var.region
  ssh_username  = "ubuntu"
  instance_type = var.kind == "gpu" ? "g6e.2xlarge" : "m7i.2xlarge"

  metadata_options {
    http_tokens = "required"
  }

  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_size           = 100
    volume_type           = "gp3"
    delete_on_termination = true
  }
}

build {
  sources = ["source.amazon-ebs.node"]

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
