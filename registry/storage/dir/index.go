package dir

type indexWriter struct{}

func (w *indexWriter) start(s *Storage)          {}
func (w *indexWriter) stop(s *Storage) error     { return nil }
func (w *indexWriter) changing(s *Storage) error { return nil }
func (w *indexWriter) changed()                  {}
func (s *Storage) importIndex() error            { return nil }
func (w *indexWriter) abandon()                  {}
