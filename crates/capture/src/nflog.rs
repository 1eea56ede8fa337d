//! Reading the reports of dropped packets (nflog).
