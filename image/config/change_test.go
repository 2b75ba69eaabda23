package config

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

func TestChanges(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	err := Change(&c, []string{
		"ENV PATH=/bin A=1\nENV PATH $PATH:/usr/bin", "env Q='single $A' D=\"double $A\" E=a\\ b",
		"CMD echo $A", "ENTRYPOINT [\"/bin/x\", \"-y\"]", "EXPOSE 80 53/udp 8000-8002/tcp", "LABEL a=1 \\\n b=\"2 3\"",
		"USER 1000:${GROUP:-50}", "WORKDIR /srv", "WORKDIR app", "VOLUME [\"/data\"]", "VOLUME /a /b", "STOPSIGNAL SIGINT",
		"ONBUILD RUN make", "HEALTHCHECK --interval=5s --retries=3 CMD curl localhost", "# a remark",
	})
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...string) map[string]struct{} {
		m := map[string]struct{}{}
		for _, k := range keys {
			m[k] = struct{}{}
		}
		return m
	}
	var want dockerspec.DockerOCIImageConfig
	want.Env = []string{"PATH=/bin:/usr/bin", "A=1", "Q=single $A", "D=double 1", "E=a b"}
	want.Cmd = []string{"/bin/sh", "-c", "echo $A"}
	want.Entrypoint = []string{"/bin/x", "-y"}
	want.ExposedPorts = set("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")
	want.Labels = map[string]string{"a": "1", "b": "2 3"}
	want.User, want.WorkingDir, want.StopSignal = "1000:50", "/srv/app", "SIGINT"
	want.Volumes = set("/data", "/a", "/b")
	want.OnBuild = []string{"RUN make"}
	want.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "curl localhost"}, Interval: 5 * time.Second, Retries: 3}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"RUN x", "ENV A", "ENV", "LABEL a=1 b", "EXPOSE x", "EXPOSE 90-80", "EXPOSE 1/icmp", "USER a b", "VOLUME [\"\"]", "VOLUME []",
		"HEALTHCHECK curl", "HEALTHCHECK --retries=x CMD y", "HEALTHCHECK --color=x CMD y", "ONBUILD FROM x", "ENV A=\"open", "USER ${A", "STOPSIGNAL a b"} {
		if err := Change(&dockerspec.DockerOCIImageConfig{}, []string{bad}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
