package exposition

import (
	"bytes"
	"math"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Prometheus' own parser reads what is written.
func TestPage(t *testing.T) {
	p := &Page{}
	p.Gauge("a_info", "some \\ help\nin two lines", Sample{Labels: []string{"x", "a \"b\" \\ c\nd\xff", "y", ""}, Value: 1}, Sample{Labels: []string{"x", "z"}, Value: -2.5})
	p.Counter("b_total", "", math.MaxUint32)
	timer := NewTimer("c_seconds", "how long", "action", "never")
	timer.Observe("once", .005)
	timer.Observe("once", .3)
	timer.Observe("once", 60)
	timer.Write(p)

	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(p.Bytes()))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Bytes())
	}
	a := families["a_info"]
	if got := a.GetMetric()[0].GetLabel()[0].GetValue(); a.GetHelp() != "some \\ help\nin two lines" || got != "a \"b\" \\ c\nd\uFFFD" || a.GetMetric()[1].GetGauge().GetValue() != -2.5 {
		t.Errorf("%v", a)
	}
	if got := families["b_total"].GetMetric()[0].GetCounter().GetValue(); got != math.MaxUint32 {
		t.Error(got)
	}
	c := families["c_seconds"].GetMetric()
	if len(c) != 2 || c[0].GetHistogram().GetSampleCount() != 0 {
		t.Fatalf("%v", c)
	}
	h := c[1].GetHistogram()
	if h.GetSampleCount() != 3 || h.GetSampleSum() != 60.305 || h.GetBucket()[0].GetCumulativeCount() != 1 || h.GetBucket()[5].GetCumulativeCount() != 1 || h.GetBucket()[6].GetCumulativeCount() != 2 || h.GetBucket()[10].GetCumulativeCount() != 2 || h.GetBucket()[11].GetCumulativeCount() != 3 {
		t.Errorf("%v", h)
	}
}
