package cgroup

import "strings"

// idLength is how many hexadecimal digits a container's id has, for all runtimes
// that follow Docker.
const idLength = 64

// Container returns the id of the container that a cgroup is in, or "". Of
// containers inside another, as in a node that is a container, the innermost
// counts. Runtimes name the cgroup of a container after it:
//
//	/docker/ID, /kubepods/burstable/podUID/ID              cgroupfs driver
//	…/docker-ID.scope, …/cri-containerd-ID.scope,          systemd driver
//	…/crio-ID.scope, …/libpod-ID.scope, …/nerdctl-ID.scope
//	…/kubepods-podUID.slice:cri-containerd:ID              containerd, if configured for the wrong driver
//
// The cgroups of monitors (crio-conmon-ID, libpod-conmon-ID) are no containers.
func Container(path string) string {
	for path != "" {
		cut := strings.LastIndexByte(path, '/')
		if id := containerID(path[cut+1:]); id != "" {
			return id
		}
		path = path[:max(cut, 0)]
	}
	return ""
}

func containerID(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	if len(name) < idLength {
		return ""
	}
	prefix, id := name[:len(name)-idLength], name[len(name)-idLength:]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.HasSuffix(prefix, "conmon-") {
		return ""
	}
	if prefix != "" && !strings.HasSuffix(prefix, "-") && !strings.HasSuffix(prefix, ":") {
		return ""
	}
	return id
}
